"""Does this processor multiply bytes exactly? Asked of onnxruntime itself, with the largest codes that there are.

Without VNNI, x86 kernels add two products in 16 bits and saturate; where that happens, twins get smaller codes
(edgekit.twin.codes). Flags would have to be known for every kernel of every release, so a small product is computed
and compared. This is the only module beside session that imports onnxruntime: it runs a graph of its own, never a
bundle's, which it writes as protobuf (onnx.proto3) because devices have no onnx package.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgekit.twin.codes import Codes, Reach

_FLOAT, _UINT8, _INT8 = 1, 2, 3
_COLUMNS, _ROWS, _TOKENS = 64, 48, 9
"""Neither sizes nor remainders are special to any kernel's tiles, so both its body and its edges are asked."""


def reach() -> Reach:
    """The largest code of a twin on this processor."""
    return 127 if all(_exact(np.full((_COLUMNS, _ROWS), code, np.int8)) for code in (127, -127)) else 64


def _exact(weights: Codes) -> bool:
    inputs = np.full((_TOKENS, _COLUMNS), 255, np.uint8)
    inputs[1::2] = 0  # 255 and 0 are the ends of what activations become
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_product(weights), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": inputs})
    expected = (inputs.astype(np.int64) - 128) @ weights.astype(np.int64)
    return bool(np.array_equal(found, expected.astype(np.float32)))


def _product(weights: Codes) -> bytes:
    """A model that multiplies x, uint8 [_TOKENS, _COLUMNS] around 128, by `weights`: float32."""
    columns, rows = weights.shape
    node = b"".join(_bytes(1, name.encode()) for name in ("x", "w", "one", "one", "middle", "zero"))
    node += _bytes(2, b"y") + _bytes(4, b"MatMulIntegerToFloat") + _bytes(7, b"com.microsoft")
    tensors = [
        _tensor("w", _INT8, weights.shape, weights),
        _tensor("one", _FLOAT, (), np.asarray(1, np.float32)),
        _tensor("middle", _UINT8, (), np.asarray(128, np.uint8)),
        _tensor("zero", _INT8, (), np.asarray(0, np.int8)),
    ]
    graph = _bytes(1, node) + _bytes(2, b"probe") + b"".join(_bytes(5, tensor) for tensor in tensors)
    graph += _bytes(11, _described("x", _UINT8, (_TOKENS, columns)))
    graph += _bytes(12, _described("y", _FLOAT, (_TOKENS, rows)))
    opsets = [_bytes(1, domain) + _number(2, version) for domain, version in ((b"", 21), (b"com.microsoft", 1))]
    return _number(1, 10) + _bytes(7, graph) + b"".join(_bytes(8, opset) for opset in opsets)


def _tensor(name: str, kind: int, shape: Sequence[int], values: npt.NDArray[np.generic]) -> bytes:
    dims = b"".join(_number(1, size) for size in shape)
    return dims + _number(2, kind) + _bytes(8, name.encode()) + _bytes(9, values.tobytes())


def _described(name: str, kind: int, shape: Sequence[int]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, dims)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + _varint(value >> 7)

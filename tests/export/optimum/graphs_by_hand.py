"""Float graphs such as exporters write, small enough to be written by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

VOCAB, WIDTH, INNER = 40, 32, 48
Values = Mapping[str, NDArray[np.generic]]


def values(seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Constants of `nodes`; `head` is the transposed embedding, as exporters write out what is tied."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.3, shape).astype(np.float32)

    embed = normal(VOCAB, WIDTH)
    return {
        "embed": embed,
        "up": normal(WIDTH, INNER),
        "down": normal(WIDTH, INNER),
        "down_bias": normal(WIDTH),
        "head": np.ascontiguousarray(embed.T),
        "gain": normal(WIDTH),
        "flat": np.asarray([-1, INNER], np.int64),
        "deep": np.asarray([1, -1, WIDTH], np.int64),
        "two": np.asarray(2, np.float32),
    }


def nodes() -> list[onnx.NodeProto]:
    """Embedding, a MatMul, a Gemm with a bias, and a head whose logits are scaled."""
    make = helper.make_node
    return [
        make("Identity", ["up"], ["up_again"], name="/same"),
        make("Gather", ["embed", "input_ids"], ["x"], name="/model/embed/Gather"),
        make("Mul", ["x", "gain"], ["scaled"], name="/model/norm/Mul"),
        make("MatMul", ["scaled", "up_again"], ["inner"], name="/model/layers.0/up/MatMul"),
        make("Reshape", ["inner", "flat"], ["rows"], name="/model/flat"),
        make("Gemm", ["rows", "down", "down_bias"], ["out"], name="/model/layers.0/down/Gemm", transB=1),
        make("Reshape", ["out", "deep"], ["y"], name="/model/deep"),
        make("MatMul", ["y", "head"], ["raw"], name="/lm_head/MatMul"),
        make("Mul", ["raw", "two"], ["logits"], name="/scale"),
    ]


def save(
    path: Path,
    *,
    made: Sequence[onnx.NodeProto] | None = None,
    constants: Values | None = None,
    external: bool = False,
) -> Path:
    """Write the model with inputs `input_ids` and outputs `logits`; returns `path`."""
    stored = values() if constants is None else constants
    graph = helper.make_graph(
        list(nodes() if made is None else made),
        "by hand",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", VOCAB])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(path), save_as_external_data=external, location="weights.bin", size_threshold=1024)
    return path

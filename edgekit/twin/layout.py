"""Which bytes of `prefill.onnx.data` come from which bytes of `model.onnx.data`. A rule without IO.

Tensors of the prompt's graph follow each other in the order of the graph, each at the next multiple of 64 bytes.

    {name}.int8        int8     [columns, rows]   codes of the matrix `name`, transposed
    {name}.row_scales  float32  [rows]            what a row's codes are multiplied by
    any other name     as in the decoder's graph  the same bytes

Both graphs are untrusted: everything is held against everything else before a byte is written.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit import contract
from edgekit.arch import MAX_DIMENSION
from edgekit.onnxfile import ExternalTensor
from edgekit.quant import QuantSpec

CODES, ROW_SCALES = ".int8", ".row_scales"
ALIGN_BYTES = 64
FLOAT, UINT8, INT8 = 1, 2, 3
"""TensorProto.DataType."""

_ITEM_BYTES = {FLOAT: 4, UINT8: 1, INT8: 1}
_MOST_GROWTH = 3
"""No tensor can grow more than this. A graph that names the same bytes under many names could fill a disk."""


@dataclass(frozen=True)
class Copied:
    """`length` bytes at `source` of the decoder's data file that are the same in the prompt's."""

    name: str
    offset: int
    source: int
    length: int


@dataclass(frozen=True)
class Expanded:
    """A matrix [rows, columns]; offsets of what it becomes, and of what it is stored as in the decoder's data file."""

    name: str
    spec: QuantSpec
    rows: int
    columns: int
    codes_offset: int
    scales_offset: int
    stored: int
    stored_scales: int
    stored_zero_points: int | None


@dataclass(frozen=True)
class Layout:
    """What to write, in the order of the file, and its size."""

    parts: tuple[Copied | Expanded, ...]
    size_bytes: int


def after(end: int) -> int:
    """Where a tensor begins that follows one which ends at `end`."""
    return -(-end // ALIGN_BYTES) * ALIGN_BYTES


def layout_of(
    decoder: Sequence[ExternalTensor], prompt: Sequence[ExternalTensor], specs: Mapping[str, str], *, data_bytes: int
) -> Layout:
    """The layout of a bundle's two graphs; `specs` is `quant.weights` of its manifest, by the matrix's name.

    `data_bytes` is the size of the decoder's data file. Raises ValueError for graphs that do not belong together.
    """
    stored = {tensor.name: tensor for tensor in decoder}
    if len(stored) != len(decoder) or len({tensor.name for tensor in prompt}) != len(prompt):
        raise ValueError("a graph has two tensors of one name")
    for tensor in decoder:
        _check_place(tensor, contract.DATA_FILE, data_bytes)
    size = _check_order(prompt, _MOST_GROWTH * data_bytes)
    by_name = {tensor.name: tensor for tensor in prompt}
    parts: list[Copied | Expanded] = []
    for tensor in prompt:
        if tensor.name.endswith(CODES):
            parts.append(_expanded(tensor, by_name, stored, specs))
        elif not tensor.name.endswith(ROW_SCALES):
            parts.append(_copied(tensor, stored))
        elif tensor.name.removesuffix(ROW_SCALES) + CODES not in by_name:
            raise ValueError(f"{tensor.name!r} belongs to no matrix")
    return Layout(tuple(parts), size)


def _check_order(prompt: Sequence[ExternalTensor], most_bytes: int) -> int:
    end = 0
    for tensor in prompt:
        _check_place(tensor, contract.PREFILL_DATA, most_bytes)
        if tensor.offset != after(end):
            raise ValueError(f"{tensor.name!r} is not where it should be")
        end = tensor.offset + _bytes(tensor)
    return end


def _check_place(tensor: ExternalTensor, location: str, most_bytes: int) -> None:
    if tensor.location != location:
        raise ValueError(f"{tensor.name!r} is in {tensor.location!r}")
    if len(tensor.shape) > 8 or not all(0 < size < MAX_DIMENSION for size in tensor.shape):
        raise ValueError(f"{tensor.name!r} has the shape {tensor.shape}")
    if tensor.length != _bytes(tensor) or tensor.offset < 0 or tensor.offset + tensor.length > most_bytes:
        raise ValueError(f"{tensor.name!r} does not fit into {location}")


def _bytes(tensor: ExternalTensor) -> int:
    if tensor.kind not in _ITEM_BYTES:
        raise ValueError(f"{tensor.name!r} has the type {tensor.kind}")
    return math.prod(tensor.shape) * _ITEM_BYTES[tensor.kind]


def _copied(tensor: ExternalTensor, stored: Mapping[str, ExternalTensor]) -> Copied:
    source = stored.get(tensor.name)
    if source is None or (source.kind, source.shape) != (tensor.kind, tensor.shape):
        raise ValueError(f"the decoder has no {tensor.name!r} like the prompt's")
    return Copied(tensor.name, tensor.offset, source.offset, _bytes(source))


def _expanded(
    codes: ExternalTensor,
    prompt: Mapping[str, ExternalTensor],
    stored: Mapping[str, ExternalTensor],
    specs: Mapping[str, str],
) -> Expanded:
    name = codes.name.removesuffix(CODES)
    if name not in specs or len(codes.shape) != 2 or codes.kind != INT8:
        raise ValueError(f"{codes.name!r} is no matrix of this model")
    spec = QuantSpec.parse(specs[name])
    columns, rows = codes.shape
    if spec.bits == 32:
        raise ValueError(f"{name!r} is not stored in blocks")
    blocks = spec.blocks(columns)
    weight = _typed(stored, f"{name}.weight", UINT8, (rows, blocks, spec.block_size * spec.bits // 8))
    scales = _typed(stored, f"{name}.scales", FLOAT, (rows, blocks))
    zero_points = None
    if spec.offsets != "none":
        zero_points = _typed(stored, f"{name}.zero_points", UINT8, (rows, -(-blocks * spec.bits // 8)))
    row_scales = _typed(prompt, f"{name}{ROW_SCALES}", FLOAT, (rows,))
    if row_scales.offset != after(codes.offset + rows * columns):
        raise ValueError(f"{row_scales.name!r} does not follow its codes")
    return Expanded(
        name,
        spec,
        rows,
        columns,
        codes.offset,
        row_scales.offset,
        weight.offset,
        scales.offset,
        None if zero_points is None else zero_points.offset,
    )


def _typed(tensors: Mapping[str, ExternalTensor], name: str, kind: int, shape: tuple[int, ...]) -> ExternalTensor:
    found = tensors.get(name)
    if found is None or (found.kind, found.shape) != (kind, shape):
        raise ValueError(f"{name!r} should have the type {kind} and the shape {shape}")
    return found

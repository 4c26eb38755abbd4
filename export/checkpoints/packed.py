"""Linear layers that GPTQ or AWQ packed into 32-bit words, presented as one quantised matrix each.

Stored beside each other under a layer's name, for `inputs` x `outputs` weights of `bits` bits in groups of inputs
(AutoGPTQ's and GPTQModel's QuantLinear; AutoAWQ's WQLinear_GEMM; n = 32 / bits values to a word, lowest bits first):

              GPTQ                      AWQ, version "gemm"
    qweight   int32 [inputs / n, outputs]   int32 [inputs, outputs / n]
    qzeros    int32 [groups, outputs / n]   int32 [groups, outputs / n]
    scales    float [groups, outputs]       float [groups, outputs]
    g_idx     int32 [inputs], the group of each input      -

    weight[output, input] = scales[group, output] * (qweight[input, output] - zero[group, output])

GPTQ's first format stores zero - 1 (modulo 2^bits, as AutoGPTQ's own dequantiser masks), "gptq_v2" the zero itself.
AWQ's words hold their eight outputs in the order 0, 2, 4, 6, 1, 3, 5, 7.
The values are taken over as they are: nothing is rounded again.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import CorruptCheckpoint, MissingTensor, UnsupportedCheckpoint
from edgekit.quant import BLOCK_SIZES
from export.checkpoints.records import Blocks, TensorInfo
from export.checkpoints.safetensors_values import FLOATS, Located, read_columns, read_integers, read_words

log = logging.getLogger(__name__)

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_NEAREST = 128
"""Blocks cut out of a longer group are at most this long: longer ones save nothing, shorter ones cost scales."""

_WAY_OUT = "Give the original checkpoint, a GGUF of it, or one that GPTQ or AWQ (version gemm) made"


class _Settings(msgspec.Struct, frozen=True):
    """`quantization_config` of config.json, as far as the layout depends on it."""

    quant_method: str = ""
    bits: int = 4
    group_size: int = 128
    checkpoint_format: str | None = None
    version: str | None = None
    zero_point: bool = True
    desc_act: bool = False


@dataclass(frozen=True, slots=True)
class Packing:
    """How a checkpoint packs its linear layers. `group_size` is -1 for one group per output."""

    method: Literal["gptq", "awq"]
    bits: Literal[4, 8]
    group_size: int
    zero_shift: int
    """What to add to a stored zero point."""
    needs_index: bool = False
    """Whether columns were sorted by their activations, so that only g_idx knows their groups."""

    @property
    def per_word(self) -> int:
        """Values in 32 bits."""
        return 32 // self.bits


def packing_of(config: Mapping[str, object]) -> Packing | None:
    """What config.json says of packed layers; None for plain floats.

    Raises CorruptCheckpoint, or UnsupportedCheckpoint for a method or a layout that is not read.
    """
    found = config.get("quantization_config") or config.get("compression_config")
    if not found:
        return None
    try:
        settings = msgspec.convert(found, _Settings)
    except msgspec.ValidationError as error:
        raise CorruptCheckpoint(f"quantization_config: {error}"[:500], "config.json") from error
    if settings.group_size != -1 and not 0 < settings.group_size < 1 << 31:
        raise CorruptCheckpoint(f"quantization_config: a group_size of {settings.group_size}", "config.json")
    if settings.quant_method == "gptq":
        return _gptq(settings)
    if settings.quant_method == "awq":
        return _awq(settings)
    method = settings.quant_method or "a method that it does not name"
    raise UnsupportedCheckpoint(f"its weights are quantised already, by {method!r}. {_WAY_OUT}")


def _gptq(settings: _Settings) -> Packing:
    layout = settings.checkpoint_format or "gptq"
    if layout not in ("gptq", "gptq_v2"):
        raise UnsupportedCheckpoint(f"it is a GPTQ checkpoint in the layout {layout!r}; gptq and gptq_v2 are read")
    zero_shift = 1 if layout == "gptq" else 0
    sorted_columns = settings.desc_act and settings.group_size != -1
    if settings.bits == 4:
        return Packing("gptq", 4, settings.group_size, zero_shift, sorted_columns)
    if settings.bits == 8:
        return Packing("gptq", 8, settings.group_size, zero_shift, sorted_columns)
    raise UnsupportedCheckpoint(f"it is a GPTQ checkpoint of {settings.bits} bits; 4 and 8 are read. {_WAY_OUT}")


def _awq(settings: _Settings) -> Packing:
    layout = (settings.version or settings.checkpoint_format or "gemm").lower()  # AutoAWQ's own file says "GEMM"
    if layout != "gemm" or settings.bits != 4 or not settings.zero_point:
        raise UnsupportedCheckpoint(
            f"it is an AWQ checkpoint of version {layout!r}, {settings.bits} bits"
            f"{'' if settings.zero_point else ', without zero points'}; version gemm of 4 bits is read. {_WAY_OUT}"
        )
    return Packing("awq", 4, settings.group_size, 0)


class PackedMatrix:
    """One packed layer as a matrix [outputs, inputs]. Made by `find_packed`, which checks it."""

    def __init__(self, name: str, packing: Packing, parts: Mapping[str, Located]) -> None:
        self._name = name
        self._packing = packing
        self._weight, self._zeros, self._scales = parts["qweight"], parts["qzeros"], parts["scales"]
        self._index = parts.get("g_idx")
        self._groups = self._scales.shape[0]
        self._inputs, self._outputs = _sizes(packing, self._weight)

    @cached_property
    def info(self) -> TensorInfo:
        """Shape and dtype: GPTQ4, GPTQ8 or AWQ4. Without a `block_size` there are no `blocks`."""
        dtype = f"{self._packing.method.upper()}{self._packing.bits}"
        return TensorInfo((self._outputs, self._inputs), dtype, self._block)

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Outputs `start` to `stop`: [stop - start, inputs]. Raises ValueError or CorruptCheckpoint."""
        if not 0 <= start <= stop <= self._outputs:
            raise ValueError(f"rows {start}..{stop} of {self._name!r} with {self._outputs}")
        index = self._group_index()
        scales, zeros = self._read_scales(start, stop), self._read_zeros(start, stop)
        values = self._read_codes(start, stop).astype(np.float32)
        values -= np.take(zeros, index, axis=1)
        values *= np.take(scales, index, axis=1)
        return values

    def blocks(self) -> Blocks | None:
        """The stored codes, or None if the columns of a group do not lie together."""
        size = self._block
        if size is None:
            return None
        half = 1 << (self._packing.bits - 1)
        of_block = self._group_index()[::size]
        codes = (self._read_codes(0, self._outputs) - np.uint8(half)).view(np.int8)  # wraps: 0 becomes -half
        scales = np.take(self._read_scales(0, self._outputs), of_block, axis=1)
        zeros = np.take(self._read_zeros(0, self._outputs), of_block, axis=1)
        offsets = None if (zeros == half).all() else scales * (half - zeros.astype(np.float32))
        return Blocks(codes, scales, offsets, self._packing.bits, size)

    @cached_property
    def _block(self) -> int | None:
        """The longest block of columns of which each lies in one group, and for which there are operators."""
        group = self._inputs if self._packing.group_size == -1 else self._packing.group_size
        common = math.gcd(group, self._inputs)
        sizes = (common, *sorted((size for size in BLOCK_SIZES if size <= _NEAREST), reverse=True))
        size = next((size for size in sizes if size in BLOCK_SIZES and common % size == 0), None)
        if size is None:
            return None
        by_block = self._group_index().reshape(-1, size)
        return size if (by_block == by_block[:, :1]).all() else None

    def _group_index(self) -> NDArray[np.int32]:
        """The group of each column. Raises CorruptCheckpoint for a group that is not there."""
        if self._index is None:
            size = self._inputs if self._packing.group_size == -1 else self._packing.group_size
            return np.arange(self._inputs, dtype=np.int32) // np.int32(size)
        index = read_integers(self._index)
        if ((index < 0) | (index >= self._groups)).any():
            raise CorruptCheckpoint(
                f"the tensor {self._name!r} has {self._groups} groups, but g_idx names others", self._index.file.name
            )
        return index

    def _read_codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Codes from 0 of some outputs: [stop - start, inputs]."""
        if self._packing.method == "awq":
            return self._across(self._weight, start, stop)
        bits, words = self._packing.bits, read_words(self._weight, start, stop)
        codes = np.empty((stop - start, self._inputs), np.uint8)
        for k in range(self._packing.per_word):
            codes[:, k :: self._packing.per_word] = ((words >> np.uint32(bits * k)) & np.uint32((1 << bits) - 1)).T
        return codes

    def _read_zeros(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Zero points of some outputs: [stop - start, groups]."""
        mask = np.uint8((1 << self._packing.bits) - 1)
        return (self._across(self._zeros, start, stop) + np.uint8(self._packing.zero_shift)) & mask

    def _read_scales(self, start: int, stop: int) -> NDArray[np.float32]:
        """Scales of some outputs: [stop - start, groups]."""
        name = self._name.removesuffix("weight") + "scales"
        return np.ascontiguousarray(read_columns(self._scales, name, start, stop).T)

    def _across(self, tensor: Located, start: int, stop: int) -> NDArray[np.uint8]:
        """Values of a tensor whose words hold neighbouring outputs: [stop - start, tensor's rows]."""
        bits, count = self._packing.bits, self._packing.per_word
        order = _AWQ_ORDER if self._packing.method == "awq" else tuple(range(count))
        first, last = start // count, -(-stop // count)
        words = read_words(tensor, first, last)
        values = np.empty(((last - first) * count, len(words)), np.uint8)
        for k, column in enumerate(order):
            values[column::count] = ((words >> np.uint32(bits * k)) & np.uint32((1 << bits) - 1)).T
        return values[start - first * count : stop - first * count]


def find_packed(packing: Packing, tensors: Mapping[str, Located]) -> tuple[dict[str, PackedMatrix], dict[str, Located]]:
    """The packed layers under the names of the matrices that they are, and the other tensors.

    Raises MissingTensor, CorruptCheckpoint (shapes or types that contradict each other or the configuration) or
    UnsupportedCheckpoint.
    """
    prefixes = [name.removesuffix("qweight") for name in tensors if name.endswith(".qweight")]
    if not prefixes:
        raise CorruptCheckpoint(f"it announces {packing.method} weights, but no tensor is packed", "config.json")
    plain = dict(tensors)
    packed: dict[str, PackedMatrix] = {}
    for prefix in prefixes:
        name = f"{prefix}weight"
        parts = {part: plain.pop(prefix + part) for part in _PARTS if prefix + part in plain}
        _check(prefix, packing, parts)
        if name in plain:
            raise CorruptCheckpoint(f"{name!r} is there twice: packed and plain", parts["qweight"].file.name)
        packed[name] = PackedMatrix(name, packing, parts)
    scattered = sum(matrix.info.block_size is None for matrix in packed.values())
    if scattered:
        log.warning(
            "%d of %d packed matrices have groups that no operator holds (columns in the order of their activations): "
            "they are read as floats and rounded anew",
            scattered,
            len(packed),
        )
    return packed, plain


def _sizes(packing: Packing, weight: Located) -> tuple[int, int]:
    """Inputs and outputs of the layer."""
    rows, columns = weight.shape
    return (rows * packing.per_word, columns) if packing.method == "gptq" else (rows, columns * packing.per_word)


def _check(prefix: str, packing: Packing, parts: Mapping[str, Located]) -> None:
    """Every relation between the parts of a layer, before any of them is read."""
    for part in ("qzeros", "scales", *(["g_idx"] if packing.needs_index else [])):
        if part not in parts:
            raise MissingTensor(prefix + part)
    file = parts["qweight"].file.name
    if len(parts["qweight"].shape) != 2 or 0 in parts["qweight"].shape:
        raise CorruptCheckpoint(f"the tensor {prefix}qweight has the shape {list(parts['qweight'].shape)}", file)
    inputs, outputs = _sizes(packing, parts["qweight"])
    groups = 1 if packing.group_size == -1 else -(-inputs // packing.group_size)
    expected: dict[str, tuple[int, ...]] = {
        "qweight": parts["qweight"].shape,
        "qzeros": (groups, outputs // packing.per_word),
        "scales": (groups, outputs),
        "g_idx": (inputs,),
    }
    if outputs % packing.per_word:
        raise CorruptCheckpoint(f"{prefix}qweight has {outputs} outputs, whose zero points fill no whole words", file)
    if packing.method == "awq" and "g_idx" in parts:
        raise CorruptCheckpoint(f"{prefix}g_idx is no part of an AWQ layer", file)
    for part, tensor in parts.items():
        types = tuple(FLOATS) if part == "scales" else ("I32",)
        if tensor.stored.dtype not in types or tensor.shape != expected[part]:
            raise CorruptCheckpoint(
                f"the tensor {prefix}{part} is {tensor.stored.dtype} {list(tensor.shape)}; {packing.method} of "
                f"{packing.bits} bits in groups of {packing.group_size} makes it {types[0]} {list(expected[part])}",
                tensor.file.name,
            )

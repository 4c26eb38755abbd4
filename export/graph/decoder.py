"""A decoder-only transformer as one ONNX graph, written layer by layer.

The order is the order of computation. One matrix at a time is read, quantised and appended to the
data file, so memory does not grow with the model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from onnx import TensorProto

from edgekit import contract
from edgekit.arch import ModelArch
from export.families.weights import Weights
from export.graph import blocks
from export.graph.attention import AttentionWeights, Shared, attention, position_ids, shared
from export.graph.blocks import Linear, Matrix, Norm
from export.graph.ops import NOTHING, Graph, Value, WeightFile
from export.quantize import cache
from export.quantize.cache import NO_SCALES, Scales
from export.quantize.codec import QuantisedMatrix
from export.quantize.plan import Plan, PlannedMatrix, parts_apart

Written = Callable[[int], None]
"""Called with the number of bytes that were just written."""

Quantise = Callable[[PlannedMatrix], QuantisedMatrix]
"""Makes the stored form of a planned matrix."""


class Stored(Protocol):
    """Where a layer's weights come from: a file beside the graph, or inputs of the graph."""

    def matrix(self, name: str) -> Matrix:
        """A matrix with its bias."""

    def norm(self, name: str) -> Norm:
        """A norm's gain and bias."""

    def has(self, name: str) -> bool:
        """Whether a fused matrix is stored as one."""

    def cache_scales(self, at: str) -> tuple[Value, ...]:
        """Scales of a layer's cached keys and values; none if they are floats."""


@dataclass(frozen=True)
class Stream:
    """The residual stream; `added`, if there, belongs to it and waits for the norm that adds it in one operator."""

    residual: Value
    added: Value = NOTHING


def build(
    arch: ModelArch,
    plan: Plan,
    weights: Weights,
    quantise: Quantise,
    data: WeightFile,
    written: Written,
    scales: Scales = NO_SCALES,
) -> onnx.ModelProto:
    """Write all weights into `data` and return the graph that reads them; `scales` make its cache INT8."""
    g = Graph("decoder", data)
    stored = _Written(g, plan, weights, quantise, written, scales)
    ids = g.input(contract.INPUT_IDS, TensorProto.INT64, ("batch", "sequence"))
    mask = g.input(contract.ATTENTION_MASK, TensorProto.INT64, ("batch", "total"))
    common = shared(g, arch, ids, mask)
    table = stored.matrix("embed")
    places = g.weight("positions.weight", weights.tensor("positions.weight")) if arch.learned_positions else NOTHING
    stream = begin(g, ids, table, places, stored, arch)
    for i in range(arch.layers):
        stream = layer(g, i, stream, stored, arch, common)
    if arch.rotated:
        stream = Stream(blocks.linear(g, settle(g, stream, "rotated").residual, stored.matrix("rotate_out")))
    x, _ = entered(g, stream, stored.norm("norm"), arch, "normed")
    bias = g.weight("lm_head.bias", weights.tensor("lm_head.bias")) if arch.head_bias and arch.tied else NOTHING
    head = blocks.head_of(g, table, bias) if arch.tied else stored.matrix("lm_head")
    blocks.lm_head(g, x, _logits_to_keep(g), head, arch)
    return g.model()


def save(
    folder: Path,
    arch: ModelArch,
    plan: Plan,
    weights: Weights,
    quantise: Quantise,
    written: Written,
    scales: Scales = NO_SCALES,
) -> None:
    """Write `model.onnx` and `model.onnx.data` into `folder`."""
    data = WeightFile(folder / contract.DATA_FILE)
    try:
        model = build(arch, plan, weights, quantise, data, written, scales)
    finally:
        data.close()
    onnx.save(model, str(folder / contract.MODEL_FILE))


def begin(g: Graph, ids: Value, table: Linear, places: Value, stored: Stored, arch: ModelArch) -> Stream:
    """What enters the first layer; `places` is the table of learned positions, if there is one."""
    embedded = blocks.scaled(g, blocks.embedding(g, ids, table), arch.embed_scale, "embedded.scaled")
    if places != NOTHING:
        place = g.op("Gather", [places, position_ids(g, ids, arch.context)], "positions")
        embedded = g.op("Add", [embedded, place], "embedded.placed")
    return Stream(blocks.linear(g, embedded, stored.matrix("rotate_in")) if arch.rotated else embedded)


def layer(g: Graph, i: int, stream: Stream, stored: Stored, arch: ModelArch, common: Shared) -> Stream:
    """One layer: what it adds to the residual stream is left for the next norm to add."""
    return (_parallel if arch.block == "parallel" else _sequential)(g, i, stream, stored, arch, common)


def _parallel(g: Graph, i: int, stream: Stream, stored: Stored, arch: ModelArch, common: Shared) -> Stream:
    at = f"layers.{i}"
    x, stream = entered(g, stream, stored.norm(f"{at}.attention_norm"), arch, f"{at}.attention_normed")
    y = x
    if not arch.shared_norm:
        y = blocks.norm(g, stream.residual, stored.norm(f"{at}.mlp_norm"), arch, f"{at}.mlp_normed")
    mixed = attention(g, x, _attention_weights(stored, at, arch), i, arch, common)
    both = g.op("Add", [mixed, _mlp(g, y, stored, at, arch)], f"{at}.out")
    return Stream(stream.residual, blocks.scaled(g, both, arch.residual_scale, f"{at}.out.scaled"))


def _sequential(g: Graph, i: int, stream: Stream, stored: Stored, arch: ModelArch, common: Shared) -> Stream:
    at, before, after = f"layers.{i}", arch.norms != "post", arch.norms != "pre"

    def entry(stream: Stream, name: str) -> tuple[Value, Stream]:
        if before:
            return entered(g, stream, stored.norm(f"{at}.{name}"), arch, f"{at}.{name}ed")
        settled = settle(g, stream, f"{at}.{name}.residual")
        return settled.residual, settled

    def leave(x: Value, name: str) -> Value:
        normed = blocks.norm(g, x, stored.norm(f"{at}.{name}"), arch, f"{at}.{name}ed") if after else x
        return blocks.scaled(g, normed, arch.residual_scale, f"{at}.{name}.scaled")

    x, stream = entry(stream, "attention_norm")
    mixed = attention(g, x, _attention_weights(stored, at, arch), i, arch, common)
    x, stream = entry(Stream(stream.residual, leave(mixed, "attention_post_norm")), "mlp_norm")
    return Stream(stream.residual, leave(_mlp(g, x, stored, at, arch), "mlp_post_norm"))


def _attention_weights(stored: Stored, at: str, arch: ModelArch) -> AttentionWeights:
    qkv, o, scales = _fused(stored, f"{at}.qkv"), stored.matrix(f"{at}.o"), stored.cache_scales(at)
    if arch.qk_norm is None:
        return AttentionWeights(qkv, o, scales=scales)
    return AttentionWeights(qkv, o, stored.norm(f"{at}.q_norm"), stored.norm(f"{at}.k_norm"), scales)


def _fused(stored: Stored, name: str) -> tuple[Matrix, ...]:
    """A fused matrix, or what it is made of if that is stored apart."""
    return tuple(map(stored.matrix, [name] if stored.has(name) else parts_apart(name)))


def _mlp(g: Graph, x: Value, stored: Stored, at: str, arch: ModelArch) -> Value:
    if arch.gated:
        return blocks.gated_mlp(g, x, _fused(stored, f"{at}.gate_up"), stored.matrix(f"{at}.down"), at, arch)
    return blocks.plain_mlp(g, x, stored.matrix(f"{at}.up"), stored.matrix(f"{at}.down"), at, arch)


def entered(g: Graph, stream: Stream, w: Norm, arch: ModelArch, name: str) -> tuple[Value, Stream]:
    """The stream normalised, and the stream with everything added."""
    if stream.added == NOTHING:
        return blocks.norm(g, stream.residual, w, arch, name), stream
    x, residual = blocks.skip_norm(g, stream.added, stream.residual, w, arch, name)
    return x, Stream(residual)


def settle(g: Graph, stream: Stream, name: str) -> Stream:
    """The stream with everything added."""
    if stream.added == NOTHING:
        return stream
    return Stream(g.op("Add", [stream.added, stream.residual], name))


def boundary(arch: ModelArch, i: int) -> tuple[str, ...]:
    """Names of the values that flow into layer `i` > 0: where a graph can be cut."""
    residual = f"layers.{i}.attention_norm.residual"
    return (
        (residual,)
        if arch.norms == "post"
        else (f"layers.{i}.attention_normed", f"layers.{i}.attention_normed.residual")
    )


class _Written:
    """`Stored` in the data file, quantised as planned."""

    def __init__(
        self, g: Graph, plan: Plan, weights: Weights, quantise: Quantise, written: Written, scales: Scales
    ) -> None:
        self._graph, self._plan, self._weights = g, plan, weights
        self._quantise, self._written, self._scales = quantise, written, scales

    def matrix(self, name: str) -> Linear:
        planned, g = self._plan[name], self._graph
        bias = self._bias(planned.parts)
        if planned.method == "float":
            parts = [self._weights.tensor(part) for part in planned.parts]
            values = parts[0] if len(parts) == 1 else np.concatenate(parts)  # a large embedding is not copied
            stored = blocks.store_float(g, name, values, bias)
        elif name == "embed":
            stored = blocks.store_table(g, name, self._quantise(planned))
        else:
            stored = blocks.store_quantised(g, name, self._quantise(planned), bias)
        self._written(planned.bytes)
        return stored

    def norm(self, name: str) -> Norm:
        gain, bias = (f"{name}.{kind}" for kind in ("weight", "bias"))
        stored = self._graph.weight(gain, self._weights.tensor(gain))
        if not self._weights.has(bias):
            return Norm(stored)
        return Norm(stored, self._graph.weight(bias, self._weights.tensor(bias)))

    def has(self, name: str) -> bool:
        return name in self._plan

    def cache_scales(self, at: str) -> tuple[Value, ...]:
        found = [(name, self._scales[name]) for name in cache.names(at) if name in self._scales]
        return tuple(self._graph.weight(name, values) for name, values in found)

    def _bias(self, parts: tuple[str, ...]) -> blocks.Floats | None:
        names = [part.removesuffix("weight") + "bias" for part in parts]
        if not self._weights.has(names[0]):
            return None
        return np.concatenate([self._weights.tensor(name) for name in names])


def _logits_to_keep(g: Graph) -> Value:
    """An input with a default: callers that do not know it (onnxruntime-genai) get logits of every position."""
    keep = g.input(contract.LOGITS_TO_KEEP, TensorProto.INT64, ())
    g.named_constant(contract.LOGITS_TO_KEEP, np.asarray(0, np.int64))
    return keep

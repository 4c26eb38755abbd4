"""A decoder-only transformer as one ONNX graph, written layer by layer.

The order is the order of computation. One matrix at a time is read, quantised and appended to the
data file, so memory does not grow with the model.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from edgekit import contract
from edgekit.arch import ModelArch
from export.families import Weights
from export.graph import blocks, rotary
from export.graph.blocks import Linear, Shared
from export.graph.ops import Graph, Value, WeightFile
from export.quantize.plan import Plan, quantise

Written = Callable[[int], None]
"""Called with the number of bytes that were just written."""


def build(arch: ModelArch, plan: Plan, weights: Weights, data: WeightFile, written: Written) -> onnx.ModelProto:
    """Write all weights into `data` and return the graph that reads them."""
    g = Graph("decoder", data)

    def matrix(name: str) -> Linear:
        planned = plan[name]
        bias = _bias(planned.parts, arch, weights)
        if planned.method == "float":
            parts = [weights.tensor(part) for part in planned.parts]
            values = parts[0] if len(parts) == 1 else np.concatenate(parts)  # a large embedding is not copied
            stored = blocks.store_float(g, name, values, bias)
        elif name == "embed":
            stored = blocks.store_table(g, name, quantise(planned, weights))
        else:
            stored = blocks.store_quantised(g, name, quantise(planned, weights), bias)
        written(planned.bytes)
        return stored

    def gain(name: str) -> Value:
        return g.weight(f"{name}.weight", weights.tensor(f"{name}.weight"))

    ids = g.input(contract.INPUT_IDS, TensorProto.INT64, ("batch", "sequence"))
    mask = g.input(contract.ATTENTION_MASK, TensorProto.INT64, ("batch", "total"))
    shared = _shared(g, arch, mask)
    table = matrix("embed")
    stream = blocks.embedding(g, ids, table)
    x = blocks.norm(g, stream, gain("layers.0.attention_norm"), arch, "layers.0.attention_normed")
    for i in range(arch.layers):
        at = f"layers.{i}"
        mixed = blocks.attention(g, x, matrix(f"{at}.qkv"), matrix(f"{at}.o"), i, arch, shared)
        x, stream = blocks.skip_norm(g, mixed, stream, gain(f"{at}.mlp_norm"), arch, f"{at}.mlp_normed")
        out = blocks.gated_mlp(g, x, matrix(f"{at}.gate_up"), matrix(f"{at}.down"), i, arch)
        following = f"layers.{i + 1}.attention_norm" if i + 1 < arch.layers else "norm"
        x, stream = blocks.skip_norm(g, out, stream, gain(following), arch, f"{following}ed")
    head = blocks.head_of(g, table) if arch.tied else matrix("lm_head")
    blocks.lm_head(g, x, _logits_to_keep(g), head, arch)
    return g.model()


def _bias(parts: tuple[str, ...], arch: ModelArch, weights: Weights) -> blocks.Floats | None:
    kind = parts[0].rsplit(".", 2)[-2]
    present = {"q": arch.attention_bias, "o": arch.attention_bias, "gate": arch.mlp_bias, "down": arch.mlp_bias}
    if not present.get(kind, False):
        return None
    return np.concatenate([weights.tensor(part.removesuffix("weight") + "bias") for part in parts])


def _shared(g: Graph, arch: ModelArch, mask: Value) -> Shared:
    """The shape arithmetic that all layers share: index of each row's last token, total length, rotary tables."""
    sums = g.ops("ReduceSum", [mask, g.constant([1], np.int64)], (Value("row_lengths"),), attributes={"keepdims": 0})[0]
    last = g.op("Sub", [sums, g.constant(1, np.int64)], "row_last")
    lengths = g.op("Cast", [last], "row_last_int32", attributes={"to": TensorProto.INT32})
    shape = g.op("Shape", [mask], "mask_shape")
    total = g.op("Gather", [shape, g.constant(1, np.int64)], "total_length")
    total32 = g.op("Cast", [total], "total_length_int32", attributes={"to": TensorProto.INT32})
    cos, sin = rotary.tables(arch.rotary, arch.context)
    return Shared(lengths, total32, g.weight("rotary.cos", cos), g.weight("rotary.sin", sin))


def _logits_to_keep(g: Graph) -> Value:
    """An input with a default: callers that do not know it (onnxruntime-genai) get logits of every position."""
    keep = g.input(contract.LOGITS_TO_KEEP, TensorProto.INT64, ())
    g.named_constant(contract.LOGITS_TO_KEEP, np.asarray(0, np.int64))
    return keep

"""The blocks of a decoder: functions from values to values.

Operators are onnxruntime's (com.microsoft, version 1) where they carry a whole block, ONNX's otherwise.
Shapes: x is [batch, sequence, width].
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.quant import QuantSpec
from export.graph.ops import MICROSOFT, NOTHING, Attribute, Graph, Value
from export.quantize.codec import QuantisedMatrix

Floats = npt.NDArray[np.float32]

_INT8_ACTIVATIONS = 4
"""MatMulNBits accuracy_level: inputs are rounded to INT8 per block, which is what makes the kernels fast."""


@dataclass(frozen=True)
class Linear:
    """A stored matrix [rows, columns]: operator inputs after x, and what `linear` must know to call the operator."""

    name: str
    spec: QuantSpec
    rows: int
    columns: int
    weights: tuple[Value, ...]
    bias: Value = NOTHING


@dataclass(frozen=True)
class Shared:
    """What every layer reads: row lengths, total length, rotary tables."""

    lengths: Value
    total: Value
    cos: Value
    sin: Value


def store_quantised(g: Graph, name: str, matrix: QuantisedMatrix, bias: Floats | None = None) -> Linear:
    """Write a quantised matrix for MatMulNBits."""
    weights = [g.weight(f"{name}.weight", matrix.packed), g.weight(f"{name}.scales", matrix.scales)]
    if matrix.zero_points is not None:
        weights.append(g.weight(f"{name}.zero_points", matrix.zero_points))
    stored = NOTHING if bias is None else g.weight(f"{name}.bias", bias)
    return Linear(name, matrix.spec, matrix.rows, matrix.columns, tuple(weights), stored)


def store_table(g: Graph, name: str, matrix: QuantisedMatrix) -> Linear:
    """Write a quantised embedding for GatherBlockQuantized: the same bytes, a row of the matrix in a row of bytes."""
    rows = g.weight(f"{name}.weight", matrix.packed.reshape(matrix.rows, -1))
    return Linear(name, matrix.spec, matrix.rows, matrix.columns, (rows, g.weight(f"{name}.scales", matrix.scales)))


def head_of(g: Graph, table: Linear) -> Linear:
    """The embedding as LM head: the stored bytes of `table`, seen as MatMulNBits wants them."""
    if table.spec.bits == 32:
        return table
    shape = (table.rows, table.spec.blocks(table.columns), table.spec.block_size * table.spec.bits // 8)
    same_bytes = g.alias("lm_head.weight", table.weights[0], shape)
    return replace(table, name="lm_head", weights=(same_bytes, table.weights[1]))


def store_float(g: Graph, name: str, matrix: Floats, bias: Floats | None = None) -> Linear:
    """Write a float matrix [rows, columns]."""
    stored = NOTHING if bias is None else g.weight(f"{name}.bias", bias)
    rows, columns = matrix.shape
    return Linear(name, QuantSpec(32), rows, columns, (g.weight(f"{name}.weight", matrix),), stored)


def linear(g: Graph, x: Value, w: Linear) -> Value:
    """x [batch, sequence, columns] -> [batch, sequence, rows]."""
    if w.spec.bits == 32:
        product = g.op("FusedMatMul", [x, *w.weights], f"{w.name}.out", domain=MICROSOFT, attributes={"transB": 1})
        return product if w.bias == NOTHING else g.op("Add", [product, w.bias], f"{w.name}.biased")
    attributes: dict[str, Attribute] = {
        "K": w.spec.columns_stored(w.columns),
        "N": w.rows,
        "bits": w.spec.bits,
        "block_size": w.spec.block_size,
        "accuracy_level": _INT8_ACTIVATIONS,
    }
    if w.spec.affine:
        x = _with_block_means(g, x, w)
    inputs = [x, *w.weights]
    if w.bias != NOTHING:
        inputs += [NOTHING] * (5 - len(inputs)) + [w.bias]
    return g.op("MatMulNBits", inputs, f"{w.name}.out", domain=MICROSOFT, attributes=attributes)


def _with_block_means(g: Graph, x: Value, w: Linear) -> Value:
    """[batch, sequence, columns] -> the same with the mean of each block appended: what an affine matrix multiplies.

    Average pooling sees [batch, sequence, columns] as images of one row with `sequence` channels.
    """
    size = w.spec.block_size
    means = g.op("AveragePool", [x], f"{w.name}.means", attributes={"kernel_shape": [size], "strides": [size]})
    return g.op("Concat", [x, means], f"{w.name}.in", attributes={"axis": -1})


def norm(g: Graph, x: Value, gain: Value, arch: ModelArch, name: str) -> Value:
    """RMSNorm (Zhang and Sennrich 2019) over the last axis."""
    attributes: dict[str, Attribute] = {"axis": -1, "epsilon": arch.norm_eps, "stash_type": 1}
    return g.op("SimplifiedLayerNormalization", [x, gain], name, attributes=attributes)


def skip_norm(g: Graph, x: Value, skip: Value, gain: Value, arch: ModelArch, name: str) -> tuple[Value, Value]:
    """Add `x` to the residual stream `skip` and normalise: (normalised, new residual stream), in one operator."""
    outputs = (Value(name), NOTHING, NOTHING, Value(f"{name}.residual"))
    attributes: dict[str, Attribute] = {"epsilon": arch.norm_eps}
    g.ops("SkipSimplifiedLayerNormalization", [x, skip, gain], outputs, domain=MICROSOFT, attributes=attributes)
    return outputs[0], outputs[3]


def attention(g: Graph, x: Value, qkv: Linear, o: Linear, layer: int, arch: ModelArch, shared: Shared) -> Value:
    """x [batch, sequence, hidden] -> the same. Rotary, causal mask and KV cache live inside GroupQueryAttention."""
    shape: tuple[int | str, ...] = ("batch", arch.kv_heads, "capacity", arch.head_dim)
    past = [g.input(contract.past_name(layer, half), TensorProto.FLOAT, shape) for half in contract.HALVES]
    present = [Value(contract.present_name(layer, half)) for half in contract.HALVES]
    attributes: dict[str, Attribute] = {"num_heads": arch.heads, "kv_num_heads": arch.kv_heads, "do_rotary": 1}
    mixed, *present = g.ops(
        "GroupQueryAttention",
        [linear(g, x, qkv), NOTHING, NOTHING, *past, shared.lengths, shared.total, shared.cos, shared.sin],
        [Value(f"layers.{layer}.attention"), *present],
        domain=MICROSOFT,
        attributes=attributes,
    )
    for value in present:
        g.output(value, TensorProto.FLOAT, ("batch", arch.kv_heads, "capacity_out", arch.head_dim))
    return linear(g, mixed, o)


def gated_mlp(g: Graph, x: Value, gate_up: Linear, down: Linear, layer: int, arch: ModelArch) -> Value:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020)."""
    at = f"layers.{layer}"
    halves = (Value(f"{at}.gate"), Value(f"{at}.up"))
    gate, up = g.ops("Split", [linear(g, x, gate_up)], halves, attributes={"axis": -1, "num_outputs": 2})
    return linear(g, g.op("Mul", [_activation(g, gate, f"{at}.activated", arch), up], f"{at}.gated"), down)


def _activation(g: Graph, x: Value, name: str, arch: ModelArch) -> Value:
    if arch.activation == "silu":
        return g.op("QuickGelu", [x], name, domain=MICROSOFT, attributes={"alpha": 1.0})  # x * sigmoid(1.0 x)
    return g.op("Gelu", [x], name, attributes={"approximate": "tanh"})


def embedding(g: Graph, ids: Value, table: Linear) -> Value:
    """ids [batch, sequence] -> [batch, sequence, hidden]. A quantised table is read as stored, row by row."""
    if table.spec.bits == 32:
        return g.op("Gather", [table.weights[0], ids], "embedded")
    attributes: dict[str, Attribute] = {
        "gather_axis": 0,
        "quantize_axis": 1,
        "block_size": table.spec.block_size,
        "bits": table.spec.bits,
    }
    return g.op(
        "GatherBlockQuantized",
        [table.weights[0], ids, table.weights[1]],
        "embedded",
        domain=MICROSOFT,
        attributes=attributes,
    )


def lm_head(g: Graph, x: Value, keep: Value, w: Linear, arch: ModelArch) -> None:
    """Logits of the last `keep` positions (0: of all), written as the output `logits` [batch, kept, vocab]."""
    start = g.op("Unsqueeze", [g.op("Neg", [keep], "keep_from"), g.constant([0], np.int64)], "keep_start")
    end, axis = g.constant([np.iinfo(np.int64).max], np.int64), g.constant([1], np.int64)
    kept = g.op("Slice", [x, start, end, axis], "kept")
    logits = g.op("Identity", [linear(g, kept, w)], contract.LOGITS)
    g.output(logits, TensorProto.FLOAT, ("batch", "kept", arch.vocab))

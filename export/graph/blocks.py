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

_LEAST_ACTIVATION = 1e-8
"""Tokens that are all zeros still get a scale."""


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
class Int8Rows:
    """A matrix [rows, columns] for integer products: codes [columns, rows], a scale per row, a bias or none."""

    name: str
    codes: Value
    scales: Value
    bias: Value = NOTHING


@dataclass(frozen=True)
class Norm:
    """Gain and bias of a norm, [width]."""

    gain: Value
    bias: Value = NOTHING


Matrix = Linear | Int8Rows


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


def head_of(g: Graph, table: Linear, bias: Value) -> Linear:
    """The embedding as LM head: the stored bytes of `table`, seen as MatMulNBits wants them."""
    if table.spec.bits == 32:
        return replace(table, bias=bias)
    shape = (table.rows, table.spec.blocks(table.columns), table.spec.block_size * table.spec.bits // 8)
    same_bytes = g.alias("lm_head.weight", table.weights[0], shape)
    return replace(table, name="lm_head", weights=(same_bytes, table.weights[1]), bias=bias)


def store_float(g: Graph, name: str, matrix: Floats, bias: Floats | None = None) -> Linear:
    """Write a float matrix [rows, columns]."""
    stored = NOTHING if bias is None else g.weight(f"{name}.bias", bias)
    rows, columns = matrix.shape
    return Linear(name, QuantSpec(32), rows, columns, (g.weight(f"{name}.weight", matrix),), stored)


def linear(g: Graph, x: Value, w: Matrix) -> Value:
    """x [batch, sequence, columns] -> [batch, sequence, rows]."""
    if isinstance(w, Int8Rows):
        return _integer_linear(g, x, w)
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


def _integer_linear(g: Graph, x: Value, w: Int8Rows) -> Value:
    """Each token of x is rounded to 8 bits with a scale of its own, once for all matrices that read it.

    MatMulIntegerToFloat takes one scale for all of x, so tokens' scales are multiplied in behind it. The codes' zero
    point is 128: unsigned codes are what its fast kernels take.
    """
    middle, one = g.constant(128, np.uint8), g.constant(1, np.float32)
    codes, scales = Value(f"{x}.codes"), Value(f"{x}.scale")
    if not g.has(codes):
        largest = g.op("ReduceMax", [g.op("Abs", [x], f"{x}.abs"), g.constant([-1], np.int64)], f"{x}.largest")
        above_zero = g.op("Max", [largest, g.constant(_LEAST_ACTIVATION, np.float32)], f"{x}.above_zero")
        g.op("Mul", [above_zero, g.constant(1 / 127, np.float32)], scales)
        g.op("QuantizeLinear", [g.op("Div", [x, scales], f"{x}.shrunk"), one, middle], codes)
    inputs = [codes, w.codes, one, w.scales, middle, g.constant(0, np.int8)]
    apart = g.op("MatMulIntegerToFloat", inputs, f"{w.name}.product", domain=MICROSOFT)
    product = g.op("Mul", [apart, scales], f"{w.name}.out")
    return product if w.bias == NOTHING else g.op("Add", [product, w.bias], f"{w.name}.biased")


def _with_block_means(g: Graph, x: Value, w: Linear) -> Value:
    """[batch, sequence, columns] -> the same with the mean of each block appended: what an affine matrix multiplies.

    Pooling would say the same in one operator, and takes 1.5 (1 token) to 3 times as long (128; onnxruntime 1.32).
    """
    blocks = g.op("Reshape", [x, g.constant([0, 0, -1, w.spec.block_size], np.int64)], f"{w.name}.blocks")
    means = g.op("ReduceMean", [blocks, g.constant([-1], np.int64)], f"{w.name}.means", attributes={"keepdims": 0})
    return g.op("Concat", [x, means], f"{w.name}.in", attributes={"axis": -1})


def norm(g: Graph, x: Value, w: Norm, arch: ModelArch, name: str) -> Value:
    """RMSNorm (Zhang and Sennrich 2019) or LayerNorm (Ba et al. 2016) over the last axis."""
    attributes: dict[str, Attribute] = {"axis": -1, "epsilon": arch.norm_eps, "stash_type": 1}
    if arch.norm == "rms":
        return g.op("SimplifiedLayerNormalization", [x, w.gain], name, attributes=attributes)
    return g.op("LayerNormalization", [x, w.gain, w.bias], name, attributes=attributes)


def skip_norm(g: Graph, x: Value, skip: Value, w: Norm, arch: ModelArch, name: str) -> tuple[Value, Value]:
    """Add `x` to the residual stream `skip` and normalise: (normalised, new residual stream), in one operator."""
    outputs = (Value(name), NOTHING, NOTHING, Value(f"{name}.residual"))
    attributes: dict[str, Attribute] = {"epsilon": arch.norm_eps}
    kind, weights = ("SkipSimplifiedLayerNormalization", [w.gain])
    if arch.norm == "layer":
        kind, weights = "SkipLayerNormalization", [w.gain, w.bias]
    g.ops(kind, [x, skip, *weights], outputs, domain=MICROSOFT, attributes=attributes)
    return outputs[0], outputs[3]


def gated_mlp(g: Graph, x: Value, gate_up: tuple[Matrix, ...], down: Matrix, at: str, arch: ModelArch) -> Value:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020)."""
    products = [linear(g, x, each) for each in gate_up]
    if len(products) == 1:
        halves = (Value(f"{at}.gate"), Value(f"{at}.up"))
        products = list(g.ops("Split", products, halves, attributes={"axis": -1, "num_outputs": 2}))
    gate, up = products
    return linear(g, g.op("Mul", [activation(g, gate, f"{at}.activated", arch), up], f"{at}.gated"), down)


def plain_mlp(g: Graph, x: Value, up: Matrix, down: Matrix, at: str, arch: ModelArch) -> Value:
    """down(activation(up(x)))."""
    return linear(g, activation(g, linear(g, x, up), f"{at}.activated", arch), down)


def activation(g: Graph, x: Value, name: str, arch: ModelArch) -> Value:
    """The architecture's activation function."""
    match arch.activation:
        case "silu":
            return g.op("QuickGelu", [x], name, domain=MICROSOFT, attributes={"alpha": 1.0})  # x * sigmoid(1.0 x)
        case "gelu" | "gelu_tanh":
            kind = "none" if arch.activation == "gelu" else "tanh"
            return g.op("Gelu", [x], name, attributes={"approximate": kind})
        case "relu":
            return g.op("Relu", [x], name)
        case "relu2":
            rectified = g.op("Relu", [x], f"{name}.relu")
            return g.op("Mul", [rectified, rectified], name)


def scaled(g: Graph, x: Value, factor: float, name: str) -> Value:
    """x times a constant; x itself if that is 1."""
    return x if factor == 1.0 else g.op("Mul", [x, g.constant(factor, np.float32)], name)


def capped(g: Graph, x: Value, cap: float | None, name: str) -> Value:
    """cap * tanh(x / cap) (Gemma 2); x itself without a cap."""
    if cap is None:
        return x
    squashed = g.op("Tanh", [scaled(g, x, 1 / cap, f"{name}.shrunk")], f"{name}.squashed")
    return scaled(g, squashed, cap, name)


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
    logits = scaled(g, linear(g, kept, w), arch.logit_scale, "logits.scaled")
    named = g.op("Identity", [capped(g, logits, arch.logit_softcap, "logits.capped")], contract.LOGITS)
    g.output(named, TensorProto.FLOAT, ("batch", "kept", arch.vocab))

"""Attention: GroupQueryAttention and what it does not do itself.

The operator carries rotary embedding, the causal mask, windows, score caps and the KV cache. In front of it stand,
where an architecture needs them: normalised queries and keys, rotary widths that its kernel refuses, and ALiBi as
an attention bias.
"""

import math
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edgekit import contract
from edgekit.arch import ModelArch, Positions, Rotary
from export.graph import rotary
from export.graph.blocks import Matrix, Norm, linear, norm
from export.graph.ops import MICROSOFT, NOTHING, Attribute, Graph, Value

_ROTARY_MULTIPLE = 16
"""GroupQueryAttention (onnxruntime 1.32, CPU) takes rotary widths that are a multiple of this; RotaryEmbedding all."""

OPERATOR = "GroupQueryAttention"
SCALE_INPUTS = 12
"""Of the operator: the first of the two inputs that are scales of its cache."""

QUANTISED: dict[str, Attribute] = {
    "k_quant_type": "PER_CHANNEL",
    "v_quant_type": "PER_CHANNEL",
    "kv_cache_bit_width": 8,
}
"""What the operator says of an INT8 cache."""


@dataclass(frozen=True)
class Tables:
    """Cosines and sines [positions, dim / 2] of one kind of layer, and the position of each token in them."""

    rotary: Rotary
    cos: Value
    sin: Value
    ids: Value


@dataclass(frozen=True)
class Shared:
    """What every layer reads: index of each row's last token, total length, rotary tables, biases."""

    lengths: Value
    total: Value
    everywhere: Tables | None
    local: Tables | None
    bias: Value


@dataclass(frozen=True)
class AttentionWeights:
    """Q|K|V in one matrix (or three, if they are stored differently), the output projection, and norms if any.

    `scales` are those of cached keys and values [1, kv_heads, 1, head_dim] if the cache is INT8.
    """

    qkv: tuple[Matrix, ...]
    o: Matrix
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    scales: tuple[Value, ...] = ()


def attention(g: Graph, x: Value, w: AttentionWeights, layer: int, arch: ModelArch, shared: Shared) -> Value:
    """x [batch, sequence, hidden] -> the same."""
    at, positions = f"layers.{layer}", arch.positions(layer)
    tables = shared.local if positions is arch.local else shared.everywhere
    inside = tables is not None and tables.rotary.dim % _ROTARY_MULTIPLE == 0
    products = [linear(g, x, each) for each in w.qkv]
    heads = (products[0], *(products[1:] or (NOTHING, NOTHING)))
    if w.q_norm is not None or (tables is not None and not inside):
        heads = _prepared(g, heads, w, None if inside else tables, at, arch)
    shape: tuple[int | str, ...] = ("batch", arch.kv_heads, "capacity", arch.head_dim)
    kind = TensorProto.INT8 if w.scales else TensorProto.FLOAT
    past = [g.input(contract.past_name(layer, half), kind, shape) for half in contract.HALVES]
    present = [Value(contract.present_name(layer, half)) for half in contract.HALVES]
    inputs = [*heads, *past, shared.lengths, shared.total]
    inputs += [tables.cos, tables.sin, tables.ids] if tables is not None and inside else [NOTHING] * 3
    mixed, *present = g.ops(
        OPERATOR,
        [*inputs, shared.bias, NOTHING, *w.scales],
        [Value(f"{at}.attention"), *present],
        domain=MICROSOFT,
        attributes=_attributes(arch, positions, inside=inside) | (QUANTISED if w.scales else {}),
    )
    for value in present:
        g.output(value, kind, ("batch", arch.kv_heads, "capacity_out", arch.head_dim))
    return linear(g, mixed, w.o)


def _attributes(arch: ModelArch, positions: Positions, *, inside: bool) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {"num_heads": arch.heads, "kv_num_heads": arch.kv_heads, "do_rotary": inside}
    if inside and positions.rotary is not None and positions.rotary.interleaved:
        attributes["rotary_interleaved"] = 1
    if positions.window is not None:
        attributes["local_window_size"] = positions.window
    if arch.softcap is not None:
        attributes["softcap"] = arch.softcap
    if arch.attention_scale is not None:
        attributes["scale"] = arch.attention_scale
    return attributes


def _prepared(
    g: Graph, heads: tuple[Value, ...], w: AttentionWeights, tables: Tables | None, at: str, arch: ModelArch
) -> tuple[Value, Value, Value]:
    """Queries, keys and values apart, the first two normalised and, given `tables`, rotated."""
    query, key = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    names = [Value(f"{at}.{part}.split") for part in "qkv"]
    sizes = g.constant([query, key, key], np.int64)
    q, k, v = g.ops("Split", [heads[0], sizes], names, attributes={"axis": -1}) if heads[1] == NOTHING else heads
    if w.q_norm is not None and w.k_norm is not None:
        q = _head_norm(g, q, w.q_norm, arch.heads, f"{at}.q_normed", arch)
        k = _head_norm(g, k, w.k_norm, arch.kv_heads, f"{at}.k_normed", arch)
    if tables is not None:
        q = _rotated(g, q, tables, arch.heads, f"{at}.q_rotated")
        k = _rotated(g, k, tables, arch.kv_heads, f"{at}.k_rotated")
    return q, k, v


def _head_norm(g: Graph, x: Value, w: Norm, heads: int, name: str, arch: ModelArch) -> Value:
    """x [batch, sequence, heads * head_dim] normalised over each head, or over all of them."""
    if arch.qk_norm == "width":
        return norm(g, x, w, arch, name)
    apart = g.op("Reshape", [x, g.constant([0, 0, heads, arch.head_dim], np.int64)], f"{name}.heads")
    if arch.qk_norm == "head":
        normed = norm(g, apart, w, arch, f"{name}.apart")
    else:  # a gain of its own for each head: [heads, head_dim]
        ones = Norm(g.constant([1.0] * arch.head_dim, np.float32))
        normed = g.op("Mul", [norm(g, apart, ones, arch, f"{name}.plain"), w.gain], f"{name}.apart")
        if w.bias != NOTHING:
            normed = g.op("Add", [normed, w.bias], f"{name}.shifted")
    return g.op("Reshape", [normed, g.constant([0, 0, heads * arch.head_dim], np.int64)], name)


def _rotated(g: Graph, x: Value, tables: Tables, heads: int, name: str) -> Value:
    attributes: dict[str, Attribute] = {
        "num_heads": heads,
        "rotary_embedding_dim": tables.rotary.dim,
        "interleaved": int(tables.rotary.interleaved),
    }
    inputs = [x, tables.ids, tables.cos, tables.sin]
    return g.op("RotaryEmbedding", inputs, name, domain=MICROSOFT, attributes=attributes)


def shared(g: Graph, arch: ModelArch, ids: Value, mask: Value) -> Shared:
    """The shape arithmetic that all layers share, written once."""
    sums = g.ops("ReduceSum", [mask, g.constant([1], np.int64)], (Value("row_lengths"),), attributes={"keepdims": 0})[0]
    last = g.op("Sub", [sums, g.constant(1, np.int64)], "row_last")
    lengths = g.op("Cast", [last], "row_last_int32", attributes={"to": TensorProto.INT32})
    shape = g.op("Shape", [mask], "mask_shape")
    total = g.op("Gather", [shape, g.constant(1, np.int64)], "total_length")
    total32 = g.op("Cast", [total], "total_length_int32", attributes={"to": TensorProto.INT32})
    everywhere = _tables(g, arch.rotary, "rotary", arch, ids, total)
    local = everywhere  # one copy, if only the windows differ
    if arch.local is not None and arch.local.rotary != arch.rotary:
        local = _tables(g, arch.local.rotary, "rotary_local", arch, ids, total)
    bias = NOTHING if arch.alibi_scale is None else _alibi(g, arch, ids, total)
    return Shared(lengths, total32, everywhere, local, bias)


def position_ids(g: Graph, ids: Value, context: int) -> Value:
    """Position of each token in its row [batch, sequence]: rows end where the mask's sum says, and are right-padded."""
    known = "position_ids"
    if g.has(known):
        return Value(known)
    size = g.op("Gather", [g.op("Shape", [ids], "ids_shape"), g.constant(1, np.int64)], "new_length")
    first = g.op("Sub", [Value("row_lengths"), size], "row_first")
    start = g.op("Max", [first, g.constant(0, np.int64)], "row_start")
    column = g.op("Unsqueeze", [start, g.constant([1], np.int64)], "row_start_column")
    steps = g.op("Range", [g.constant(0, np.int64), size, g.constant(1, np.int64)], "new_steps")
    ahead = g.op("Add", [column, steps], "position_ids_ahead")
    return g.op("Min", [ahead, g.constant(context - 1, np.int64)], known)


def _tables(g: Graph, rotation: Rotary | None, name: str, arch: ModelArch, ids: Value, total: Value) -> Tables | None:
    if rotation is None:
        return None
    scaling = rotation.scaling
    scale = rotary.magnitude(rotation)
    cos, sin = _expanded(g, rotary.factors(rotary.frequencies(rotation), arch.context, scale), name)
    if scaling is None or scaling.kind != "longrope":
        outside = rotation.dim % _ROTARY_MULTIPLE != 0
        return Tables(rotation, cos, sin, position_ids(g, ids, arch.context) if outside else NOTHING)
    # Short texts read the first rows, long ones the table behind them: one offset, where a choice between two
    # tables would copy one of them for every token.
    beyond = _expanded(
        g, rotary.factors(rotary.frequencies(rotation, beyond=True), arch.context, scale), f"{name}.long"
    )
    rows = -(-arch.context // rotary.STEP) * rotary.STEP
    both = [
        g.op("Concat", pair, f"{name}.{what}.both", attributes={"axis": 0})
        for what, pair in (("cos", [cos, beyond[0]]), ("sin", [sin, beyond[1]]))
    ]
    is_long = g.op("Greater", [total, g.constant(scaling.original_context, np.int64)], f"{name}.is_long")
    offset = g.op("Where", [is_long, g.constant(rows, np.int64), g.constant(0, np.int64)], f"{name}.offset")
    moved = g.op("Add", [position_ids(g, ids, arch.context), offset], f"{name}.ids")
    return Tables(rotation, both[0], both[1], moved)


def _expanded(
    g: Graph, tables: tuple[rotary.Floats, rotary.Floats, rotary.Floats, rotary.Floats], name: str
) -> tuple[Value, Value]:
    """cos(a + b) and sin(a + b) of all positions [positions, dim / 2]; constants, so onnxruntime does this once."""
    parts = ("coarse_cos", "coarse_sin", "fine_cos", "fine_sin")
    big_cos, big_sin, cos, sin = (g.weight(f"{name}.{part}", table) for part, table in zip(parts, tables, strict=True))
    flat = g.constant([-1, tables[0].shape[-1]], np.int64)

    def product(one: Value, other: Value, what: str) -> Value:
        return g.op("Mul", [one, other], f"{name}.{what}")

    cosines = g.op("Sub", [product(big_cos, cos, "cc"), product(big_sin, sin, "ss")], f"{name}.cos_apart")
    sines = g.op("Add", [product(big_sin, cos, "sc"), product(big_cos, sin, "cs")], f"{name}.sin_apart")
    return g.op("Reshape", [cosines, flat], f"{name}.cos"), g.op("Reshape", [sines, flat], f"{name}.sin")


def alibi_slopes(heads: int) -> list[float]:
    """Slope of each head (Press et al. 2022): a geometric sequence; other counts take every second of the next one."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]


def _alibi(g: Graph, arch: ModelArch, ids: Value, total: Value) -> Value:
    """Bias [1, heads, sequence, total]: slope times position of the key. A constant per row falls out of softmax."""
    scale, one = arch.alibi_scale or 1.0, g.constant(1, np.int64)
    slopes = np.asarray(alibi_slopes(arch.heads))[None, :, None, None]
    if arch.alibi_bfloat16:
        stored = g.named_constant("alibi_slopes", slopes.astype(np.float32))
        position = _counted(g, g.constant(0, np.int64), total, "alibi_position")
        factors = [_bfloat16(g, stored, "alibi_slopes.rounded"), _bfloat16(g, position, "alibi_position.rounded")]
        product = _bfloat16(g, g.op("Mul", factors, "alibi_product"), "alibi_product.rounded")
        bias = g.op("Mul", [product, g.constant(scale, np.float32)], "alibi_row")
    else:
        stored = g.named_constant("alibi_slopes", (slopes * scale).astype(np.float32))
        bias = g.op(
            "Mul", [stored, _counted(g, g.op("Sub", [one, total], "alibi_first"), one, "alibi_distance")], "alibi_row"
        )
    width = g.op("Gather", [g.op("Shape", [ids], "alibi_ids_shape"), g.constant([1], np.int64)], "alibi_width")
    ones = g.constant([1], np.int64)
    wanted = g.op("Concat", [ones, ones, width, ones], "alibi_shape", attributes={"axis": 0})
    return g.op("Expand", [bias, wanted], "alibi_bias")


def _counted(g: Graph, start: Value, stop: Value, name: str) -> Value:
    steps = g.op("Range", [start, stop, g.constant(1, np.int64)], f"{name}.steps")
    return g.op("Cast", [steps], name, attributes={"to": TensorProto.FLOAT})


def _bfloat16(g: Graph, x: Value, name: str) -> Value:
    """x rounded to bfloat16, still in float32."""
    short = g.op("Cast", [x], f"{name}.bfloat16", attributes={"to": TensorProto.BFLOAT16})
    return g.op("Cast", [short], name, attributes={"to": TensorProto.FLOAT})

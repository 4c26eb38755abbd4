"""The same decoder in plain numpy: slow, obvious, and sharing with the graph builder only the rotary frequencies.

It never holds more than one matrix: layer by layer, row block by row block. `Matrices` is where the
numbers come from: the checkpoint itself, or the bytes of a finished bundle.
"""

import math
from collections.abc import Sequence
from typing import Protocol, assert_never

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch, Positions, Rotary
from export.graph.rotary import frequencies, magnitude

Floats = npt.NDArray[np.float32]


class Matrices(Protocol):
    """Matrices and vectors by the graph's names ("layers.0.qkv", "layers.0.attention_norm.weight")."""

    def multiply(self, name: str, x: Floats) -> Floats:
        """x [tokens, columns] times the matrix's transpose, plus its bias: [tokens, rows]."""

    def lookup(self, ids: Sequence[int]) -> Floats:
        """Rows of the embedding: [tokens, hidden]."""

    def vector(self, name: str) -> Floats:
        """A norm's gain or bias, or the table of learned positions."""

    def has(self, name: str) -> bool:
        """Whether there is such a vector."""


def logits(arch: ModelArch, matrices: Matrices, ids: Sequence[int]) -> Floats:
    """Logits [tokens, vocab] of every position of one sequence, computed without a cache."""
    stream = matrices.lookup(ids) * np.float32(arch.embed_scale)
    if arch.rotated:
        stream = matrices.multiply("rotate_in", stream)
    if arch.learned_positions:
        stream = stream + matrices.vector("positions.weight")[: len(ids)]
    for i in range(arch.layers):
        stream = layer(arch, matrices, i, stream)
    return head(arch, matrices, stream)


def head(arch: ModelArch, matrices: Matrices, stream: Floats) -> Floats:
    """Logits [tokens, vocab] of the stream that leaves the last layer [tokens, hidden]."""
    if arch.rotated:
        stream = matrices.multiply("rotate_out", stream)
    x = _norm(arch, matrices, "norm", stream)
    out = matrices.multiply("embed" if arch.tied else "lm_head", x) * np.float32(arch.logit_scale)
    return _capped(out, arch.logit_softcap)


def layer(arch: ModelArch, matrices: Matrices, i: int, stream: Floats) -> Floats:
    """One layer over the residual stream [tokens, hidden]."""
    at, scale = f"layers.{i}", np.float32(arch.residual_scale)
    before, after = arch.norms != "post", arch.norms != "pre"
    x = _norm(arch, matrices, f"{at}.attention_norm", stream) if before else stream
    mixed = _attention(arch, matrices, i, x)
    if arch.block == "parallel":
        y = x if arch.shared_norm else _norm(arch, matrices, f"{at}.mlp_norm", stream)
        return stream + scale * (mixed + _mlp(arch, matrices, at, y))
    mixed = _norm(arch, matrices, f"{at}.attention_post_norm", mixed) if after else mixed
    stream = stream + scale * mixed
    x = _norm(arch, matrices, f"{at}.mlp_norm", stream) if before else stream
    out = _mlp(arch, matrices, at, x)
    out = _norm(arch, matrices, f"{at}.mlp_post_norm", out) if after else out
    return stream + scale * out


def _norm(arch: ModelArch, matrices: Matrices, name: str, x: Floats, shape: tuple[int, ...] | None = None) -> Floats:
    """Over the last axis; `shape` is the gain's where that is not its own."""
    wide: npt.NDArray[np.float64] = x.astype(np.float64)
    if arch.norm == "layer":
        wide = wide - wide.mean(axis=-1, keepdims=True)
    wide = wide / np.sqrt(np.mean(np.square(wide), axis=-1, keepdims=True) + arch.norm_eps)
    wide = wide * matrices.vector(f"{name}.weight").reshape(shape or -1)
    if matrices.has(f"{name}.bias"):
        wide = wide + matrices.vector(f"{name}.bias").reshape(shape or -1)
    normed: Floats = wide.astype(np.float32)
    return normed


def _mlp(arch: ModelArch, matrices: Matrices, at: str, x: Floats) -> Floats:
    if arch.gated:
        gate, up = np.split(matrices.multiply(f"{at}.gate_up", x), 2, axis=-1)
        return matrices.multiply(f"{at}.down", _activate(gate, arch) * up)
    return matrices.multiply(f"{at}.down", _activate(matrices.multiply(f"{at}.up", x), arch))


def _activate(x: Floats, arch: ModelArch) -> Floats:
    match arch.activation:
        case "silu":
            active: Floats = x / (1 + np.exp(-np.clip(x, -80, None)))  # exp(80) is still a float32
        case "gelu":
            active = (0.5 * x * (1 + np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2)).astype(np.float64))).astype("f4")
        case "gelu_tanh":
            active = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi).astype(np.float32) * (x + 0.044715 * x**3)))
        case "relu":
            active = np.maximum(x, 0)
        case "relu2":
            active = np.maximum(x, 0) ** 2
        case other:
            assert_never(other)
    return active


def _capped(x: Floats, cap: float | None) -> Floats:
    if cap is None:
        return x
    squashed: Floats = np.float32(cap) * np.tanh(x / np.float32(cap))
    return squashed


def _attention(arch: ModelArch, matrices: Matrices, i: int, x: Floats) -> Floats:
    """x [tokens, hidden] -> the same, causal."""
    at, positions = f"layers.{i}", arch.positions(i)
    heads = matrices.multiply(f"{at}.qkv", x)
    queries, keys, values = np.split(heads, np.cumsum([arch.heads, arch.kv_heads])[:2] * arch.head_dim, axis=-1)
    if arch.qk_norm is not None:
        queries = _head_norm(arch, matrices, f"{at}.q_norm", queries)
        keys = _head_norm(arch, matrices, f"{at}.k_norm", keys)
    queries, keys, values = (_apart(each, arch) for each in (queries, keys, values))
    if positions.rotary is not None:
        queries, keys = _rotate(queries, positions.rotary), _rotate(keys, positions.rotary)
    sharing = arch.heads // arch.kv_heads
    keys, values = np.repeat(keys, sharing, axis=0), np.repeat(values, sharing, axis=0)
    # einsum, not `@`: so many small products in BLAS threads take ten times as long on a busy machine.
    scores = np.einsum("hqd,hkd->hqk", queries, keys)
    mixed = np.einsum("hqk,hdk->qhd", _attended(scores, arch, positions), values.transpose(0, 2, 1).copy())
    return matrices.multiply(f"{at}.o", mixed.reshape(len(x), -1))


def _attended(scores: Floats, arch: ModelArch, positions: Positions) -> Floats:
    """Products of queries and keys [heads, tokens, tokens] -> weights that sum to 1."""
    tokens = scores.shape[1]
    scale = 1 / math.sqrt(arch.head_dim) if arch.attention_scale is None else arch.attention_scale
    scores = _capped(scores * np.float32(scale), arch.softcap)
    distance = np.arange(tokens) - np.arange(tokens)[:, None]  # of a key from the query: 0, or negative
    if arch.alibi_scale is not None:
        slopes = np.asarray(_slopes(arch.heads), np.float32)[:, None, None]
        if arch.alibi_bfloat16:
            bias = _bfloat16(_bfloat16(slopes) * _bfloat16(np.arange(tokens, dtype=np.float32)))
        else:
            bias = slopes * distance
        scores = scores + np.float32(arch.alibi_scale) * bias
    seen = (distance <= 0) & (distance > -(positions.window or tokens))
    scores = np.where(seen, scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    normed: Floats = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    return normed


def _slopes(heads: int) -> list[float]:
    """ALiBi's slopes (Press et al. 2022, and its code for counts that are not a power of two)."""
    if math.log2(heads).is_integer():
        first = 2 ** (-8 / heads)
        return [first ** (i + 1) for i in range(heads)]
    below = 2 ** math.floor(math.log2(heads))
    return _slopes(below) + _slopes(2 * below)[0::2][: heads - below]


def _bfloat16(x: Floats) -> Floats:
    """Nearest values with the upper half of a float32's bits, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded: Floats = ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded


def _apart(x: Floats, arch: ModelArch) -> Floats:
    """[tokens, heads * head_dim] -> [heads, tokens, head_dim]."""
    return x.reshape(len(x), -1, arch.head_dim).transpose(1, 0, 2)


def _head_norm(arch: ModelArch, matrices: Matrices, name: str, x: Floats) -> Floats:
    if arch.qk_norm == "width":
        return _norm(arch, matrices, name, x)
    heads = x.reshape(len(x), -1, arch.head_dim)
    shape = heads.shape[1:] if arch.qk_norm == "each" else (arch.head_dim,)
    return _norm(arch, matrices, name, heads, shape).reshape(x.shape)


def _rotate(x: Floats, rotary: Rotary) -> Floats:
    """Rotate the pairs of the first `dim` values of each head by position times frequency. x [heads, tokens, dim]."""
    tokens, scaling = x.shape[1], rotary.scaling
    beyond = scaling is not None and scaling.kind == "longrope" and tokens > scaling.original_context
    angles = np.outer(np.arange(tokens), frequencies(rotary, beyond=beyond))
    cos, sin = (np.float32(magnitude(rotary)) * turn(angles).astype(np.float32) for turn in (np.cos, np.sin))
    turned, rest = x[..., : rotary.dim], x[..., rotary.dim :]
    if rotary.interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
        pairs = np.stack([first * cos - second * sin, second * cos + first * sin], axis=-1).reshape(turned.shape)
    else:
        first, second = np.split(turned, 2, axis=-1)
        pairs = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return np.concatenate([pairs, rest], axis=-1)

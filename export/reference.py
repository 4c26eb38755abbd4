"""The same decoder in plain numpy: slow, obvious, and sharing with the graph builder only the rotary frequencies.

It never holds more than one matrix: layer by layer, row block by row block. `Matrices` is where the
numbers come from: the checkpoint itself, or the bytes of a finished bundle.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch
from export.graph.rotary import frequencies

Floats = npt.NDArray[np.float32]


class Matrices(Protocol):
    """Matrices and vectors by the graph's names ("layers.0.qkv", "layers.0.attention_norm.weight")."""

    def multiply(self, name: str, x: Floats) -> Floats:
        """x [tokens, columns] times the matrix's transpose, plus its bias: [tokens, rows]."""

    def lookup(self, ids: Sequence[int]) -> Floats:
        """Rows of the embedding: [tokens, hidden]."""

    def vector(self, name: str) -> Floats:
        """A norm's gain."""


def logits(arch: ModelArch, matrices: Matrices, ids: Sequence[int]) -> Floats:
    """Logits [tokens, vocab] of every position of one sequence, computed without a cache."""
    stream = matrices.lookup(ids)
    angles = np.outer(np.arange(len(ids)), frequencies(arch.rotary))
    for i in range(arch.layers):
        at = f"layers.{i}"
        x = _rms_norm(stream, matrices.vector(f"{at}.attention_norm.weight"), arch.norm_eps)
        mixed = _attention(matrices.multiply(f"{at}.qkv", x), angles, arch)
        stream = stream + matrices.multiply(f"{at}.o", mixed)
        x = _rms_norm(stream, matrices.vector(f"{at}.mlp_norm.weight"), arch.norm_eps)
        gate, up = np.split(matrices.multiply(f"{at}.gate_up", x), 2, axis=-1)
        stream = stream + matrices.multiply(f"{at}.down", _activate(gate, arch) * up)
    x = _rms_norm(stream, matrices.vector("norm.weight"), arch.norm_eps)
    return matrices.multiply("embed" if arch.tied else "lm_head", x)


def _rms_norm(x: Floats, gain: Floats, eps: float) -> Floats:
    mean_square = np.mean(np.square(x, dtype=np.float64), axis=-1, keepdims=True)
    normed: Floats = (x / np.sqrt(mean_square + eps) * gain).astype(np.float32)
    return normed


def _activate(x: Floats, arch: ModelArch) -> Floats:
    if arch.activation == "silu":
        active: Floats = x / (1 + np.exp(-np.clip(x, -80, None)))  # exp(80) is still a float32
    else:
        active = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi).astype(np.float32) * (x + 0.044715 * x**3)))
    return active


def _attention(qkv: Floats, angles: npt.NDArray[np.float64], arch: ModelArch) -> Floats:
    """qkv [tokens, (heads + 2 kv_heads) * head_dim] -> [tokens, heads * head_dim], causal."""
    tokens = len(qkv)
    heads = qkv.reshape(tokens, arch.heads + 2 * arch.kv_heads, arch.head_dim).transpose(1, 0, 2)
    queries, keys, values = np.split(heads, [arch.heads, arch.heads + arch.kv_heads])
    queries, keys = _rotate(queries, angles), _rotate(keys, angles)
    sharing = arch.heads // arch.kv_heads
    keys, values = np.repeat(keys, sharing, axis=0), np.repeat(values, sharing, axis=0)
    # einsum, not `@`: so many small products in BLAS threads take ten times as long on a busy machine.
    scores = np.einsum("hqd,hkd->hqk", queries, keys) / np.float32(np.sqrt(arch.head_dim))
    scores = np.where(np.tri(tokens, dtype=bool), scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    by_value = np.ascontiguousarray(values.transpose(0, 2, 1))
    mixed: Floats = np.einsum("hqk,hdk->qhd", weights, by_value).reshape(tokens, -1)
    return mixed


def _rotate(x: Floats, angles: npt.NDArray[np.float64]) -> Floats:
    """Rotate pairs (j, j + dim / 2) of the first `dim` values of each head by position times frequency."""
    half = angles.shape[1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)

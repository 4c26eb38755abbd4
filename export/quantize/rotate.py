"""Residual rotation: an orthogonal matrix Q folded into the weights, which makes them easier to round.

The residual stream s of a decoder is only ever read through a norm and a matrix, and written to by a matrix. With
RMSNorm, norm(s Q) = norm(s) Q for any orthogonal Q, so the model that carries s Q computes the same once the norms'
gains g are folded into what reads them, and Q into the matrices:

    reads the stream    W' = W diag(g) Q    queries, keys, values, gate, up, an LM head of its own
    writes to it        W' = Q^T W          output projections, down projections, and their biases b' = b Q
    the embedding       E' = E Q            if it is not the LM head too

A tied embedding stays as it is, because it would need two different forms; Q follows the lookup instead, and Q^T
comes before the last norm: the matrices "rotate_in" and "rotate_out".

Outliers of single channels are spread over all of them (Ashkboos et al. 2024, QuaRot; Liu et al. 2024, SpinQuant).
Q = D (C x H), x being Kronecker's product: H is Sylvester's Hadamard matrix of the largest power of two in the width,
C the Hartley matrix cas(2 pi i j / m) of what remains, D random signs. All of it is applied in a few small products,
and a row of Q has one magnitude per block of H: INT4 holds it exactly.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch
from edgekit.errors import UsageError
from export.checkpoints import Blocks, TensorInfo
from export.families.weights import Weights
from export.quantize.plan import ROTATE_IN, ROTATIONS, Recipe, rotation_spec

Floats = npt.NDArray[np.float32]

READERS: Mapping[str, str] = {
    "q": "attention_norm",
    "k": "attention_norm",
    "v": "attention_norm",
    "gate": "mlp_norm",
    "up": "mlp_norm",
    "lm_head": "norm",
}
"""Matrices that read the residual stream, and the norm in front of each."""

WRITERS = ("o", "down")
"""Matrices that write to it."""

_SMALLEST_HADAMARD = 16
"""Of a width with a smaller power of two in it, no block of the stored rotation has one magnitude."""

_LARGEST_FACTOR = 64
"""A Hadamard matrix is applied as a product of factors of at most this size."""

_SEED = 20

_Role = Literal["product", "reader", "writer", "bias", "table", "gain", "other"]
"""What rotation does to a tensor: "bias" is that of a writer, "table" an embedding that can be rotated itself."""


def applied(arch: ModelArch, weights: Weights, recipe: Recipe) -> tuple[ModelArch, Weights]:
    """The rotated model if `recipe` wants it, else the model. Raises UsageError if rotation would change what it says.

    `ModelArch.rotated` tells the graph of the two products around a tied model.
    """
    if not recipe.rotate:
        return arch, weights
    if (reason := obstacle(arch)) is not None:
        raise UsageError(f"--rotate needs a model that it leaves as it is, and this {arch.model_type} {reason}")
    return msgspec.structs.replace(arch, rotated=arch.tied), RotatedWeights(arch, weights)


def obstacle(arch: ModelArch) -> str | None:
    """What of the architecture does not commute with a rotation of the residual stream; None if all does."""
    reasons = (
        (arch.norm != "rms" or arch.norm_bias, "subtracts means or adds biases in its norms"),
        (arch.norms != "pre", "has norms between its layers' outputs and the residual stream"),
        (arch.block != "sequential", "has layers in which attention and MLP run side by side"),
        (arch.learned_positions, "adds learned positions to the residual stream"),
        (arch.hidden % _SMALLEST_HADAMARD != 0, f"is {arch.hidden} wide, not a multiple of {_SMALLEST_HADAMARD}"),
    )
    return next((reason for holds, reason in reasons if holds), None)


class Rotation:
    """An orthogonal matrix Q [width, width], the same one for a width every time."""

    def __init__(self, width: int) -> None:
        power = width & -width
        random = np.random.default_rng(_SEED)
        self._signs = random.choice(np.asarray([-1, 1], np.float32), width)
        self._factors = [hartley(width // power)]
        while power > 1:
            size = min(power, _LARGEST_FACTOR)
            self._factors.append(hadamard(size))
            power //= size

    def of(self, x: Floats) -> Floats:
        """x [rows, width] -> x Q."""
        cube: Floats = (x * self._signs).reshape(len(x), *map(len, self._factors))
        for factor in self._factors:  # always the second axis: what was multiplied moves to the end
            cube = np.tensordot(cube, factor, axes=(1, 0))
        return cube.reshape(x.shape)

    def matrix(self) -> Floats:
        """Q itself."""
        return self.of(np.eye(len(self._signs), dtype=np.float32))


def hadamard(size: int) -> Floats:
    """Sylvester's matrix of a power of two, divided by the root of its size so that it is orthogonal."""
    found: Floats = np.ones((1, 1), np.float32)
    while len(found) < size:
        found = np.block([[found, found], [found, -found]])
    return found / np.float32(np.sqrt(size))


def hartley(size: int) -> Floats:
    """cos + sin of 2 pi i j / size (Bracewell 1983), orthogonal: as flat as a Hadamard matrix nearly, for any size."""
    angles = 2 * np.pi / size * (np.outer(np.arange(size), np.arange(size)) % size)
    found: Floats = ((np.cos(angles) + np.sin(angles)) / np.sqrt(size)).astype(np.float32)
    return found


class RotatedWeights:
    """A model's weights as `Weights`, rotated when they are read. No block of the checkpoint survives that."""

    def __init__(self, arch: ModelArch, weights: Weights) -> None:
        self._weights = weights
        self._tied = arch.tied
        self._rotation = Rotation(arch.hidden)
        self._products: dict[str, tuple[int, int]] = {}
        if arch.tied:
            self._products = {f"{name}.weight": (arch.hidden, arch.hidden) for name in ROTATIONS}
        self._last: tuple[str, Floats] | None = None

    def has(self, name: str) -> bool:
        """As `Weights`."""
        return name in self._products or self._weights.has(name)

    def shape(self, name: str) -> tuple[int, int]:
        """As `Weights`."""
        return self._products.get(name) or self._weights.shape(name)

    def dims(self, name: str) -> tuple[int, ...]:
        """As `Weights`."""
        return self._products.get(name) or self._weights.dims(name)

    def dtype(self, name: str) -> str:
        """As `Weights`."""
        return self.info(name).dtype

    def info(self, name: str) -> TensorInfo:
        """As `Weights`."""
        return TensorInfo(self.dims(name), "float32")

    def has_blocks(self, name: str) -> bool:
        """Only the rotation itself is blocks."""
        return name in self._products

    def blocks(self, name: str) -> Blocks | None:
        """The rotation's own: signs, with the magnitude that a block shares."""
        if name not in self._products:
            return None
        values = self._whole(name)
        size = rotation_spec(len(values)).block_size
        codes = np.where(values < 0, np.int8(-1), np.int8(1))
        return Blocks(codes, np.ascontiguousarray(np.abs(values[:, ::size])), None, 4, size)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """As `Weights`. Of a matrix that writes to the stream all rows are made at once, and the last such is kept."""
        match self._role(name):
            case "product" | "writer":
                return self._whole(name)[start:stop]
            case "reader":
                gain = self._weights.tensor(_gain_before(name))
                return self._rotation.of(self._weights.rows(name, start, stop) * gain)
            case "table":
                return self._rotation.of(self._weights.rows(name, start, stop))
            case "bias":
                return self._rotation.of(self._weights.tensor(name)[None])[0, start:stop]
            case "gain":
                return np.ones(stop - start, np.float32)
            case "other":
                return self._weights.rows(name, start, stop)

    def tensor(self, name: str) -> Floats:
        """As `Weights`."""
        if self._role(name) == "other":
            return self._weights.tensor(name)
        return self.rows(name, 0, self.dims(name)[0])

    def _role(self, name: str) -> _Role:
        before, _, kind = name.rpartition(".")
        part, weight = before.rpartition(".")[2], kind == "weight"
        if name in self._products:
            return "product"
        if part == "embed" and not self._tied:
            return "table"
        if part in WRITERS:
            return "writer" if weight else "bias"
        if part in READERS and weight:
            return "reader"
        if part in READERS.values() and not (part == "norm" and self._tied):
            return "gain"
        return "other"

    def _whole(self, name: str) -> Floats:
        if self._last is None or self._last[0] != name:
            self._last = None  # two at a time would be too many
            self._last = (name, self._made(name))
        return self._last[1]

    def _made(self, name: str) -> Floats:
        if name in self._products:
            q = self._rotation.matrix()
            return np.ascontiguousarray(q.T) if name == f"{ROTATE_IN}.weight" else q
        return np.ascontiguousarray(self._rotation.of(np.ascontiguousarray(self._weights.tensor(name).T)).T)


def _gain_before(name: str) -> str:
    """Of the norm in front of a reader: "layers.0.q.weight" -> "layers.0.attention_norm.weight"."""
    at, dot, part = name.removesuffix(".weight").rpartition(".")
    return f"{at}{dot}{READERS[part]}.weight"

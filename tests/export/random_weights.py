"""Random weights of any architecture under our own names: no file, no torch."""

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgekit.arch import ModelArch
from export.checkpoints import Blocks, TensorInfo
from export.families import arch_of, shapes
from export.families.weights import Weights
from tests.export.exports import checkpoint

Floats = NDArray[np.float32]


class RandomWeights:
    """What `Weights` shows of a float checkpoint. Gains and biases are clearly other than 1 and 0."""

    def __init__(self, arch: ModelArch, seed: int = 0, scale: float = 0.2) -> None:
        random = np.random.default_rng(seed)
        self.values = {name: _random(name, shape, random, scale) for name, shape in shapes(arch)}

    def has(self, name: str) -> bool:
        return name in self.values

    def shape(self, name: str) -> tuple[int, int]:
        rows, columns = self.values[name].shape
        return rows, columns

    def dims(self, name: str) -> tuple[int, ...]:
        return self.values[name].shape

    def dtype(self, name: str) -> str:
        return self.info(name).dtype

    def info(self, name: str) -> TensorInfo:
        return TensorInfo(self.values[name].shape, "float32")

    def has_blocks(self, name: str) -> bool:
        return False

    def rows(self, name: str, start: int, stop: int) -> Floats:
        return self.values[name][start:stop].copy()

    def tensor(self, name: str) -> Floats:
        return self.values[name].copy()

    def blocks(self, name: str) -> Blocks | None:
        return None


def _random(name: str, shape: tuple[int, ...], random: np.random.Generator, scale: float) -> Floats:
    values = random.normal(0.0, 0.5 if name in ("embed.weight", "lm_head.weight") else scale, shape)
    return (values + (1.0 if "norm" in name and name.endswith("weight") else 0.0)).astype(np.float32)


def as_weights(weights: RandomWeights) -> Weights:
    return cast(Weights, weights)


def arch_from(settings: Mapping[str, object]) -> ModelArch:
    """The architecture that a config.json describes."""
    return arch_of(checkpoint(settings, {}))

"""The numpy reference over a checkpoint, and what each matrix multiplied in it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.arch import ModelArch
from export import reference
from export.matrices import CheckpointMatrices
from tests.export.random_weights import RandomWeights, as_weights

Floats = NDArray[np.float32]


class Recording(CheckpointMatrices):
    """`seen` holds the inputs [tokens, columns] of each matrix, of the last row that was computed."""

    def __init__(self, arch: ModelArch, weights: RandomWeights) -> None:
        super().__init__(arch, as_weights(weights))
        self.seen: dict[str, Floats] = {}

    def multiply(self, name: str, x: Floats) -> Floats:
        self.seen[name] = x
        return super().multiply(name, x)


def logits_of(arch: ModelArch, weights: RandomWeights, ids: Sequence[int]) -> Floats:
    """[tokens, vocab]."""
    return reference.logits(arch, CheckpointMatrices(arch, as_weights(weights)), ids)


def inputs_of(arch: ModelArch, weights: RandomWeights, rows: Sequence[Sequence[int]], name: str) -> Floats:
    """What the matrix `name` multiplies: [rows, tokens, columns]."""
    found = []
    for ids in rows:
        recording = Recording(arch, weights)
        reference.logits(arch, recording, ids)
        found.append(recording.seen[name])
    return np.stack(found)

"""A decoder that is being verified, and how far its logits are from others."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from export.segments import Cache

Floats = npt.NDArray[np.float32]


class Runner(Protocol):
    """A decoder that appends ids to sequences, each with a cache of its own: `Segments`, for instance."""

    def empty(self) -> Cache:
        """The cache of a sequence with no tokens."""

    def run(self, sequences: Sequence[Sequence[int]], pasts: Sequence[Cache]) -> tuple[list[Floats], list[Cache]]:
        """Logits [tokens, vocab] and the new cache of each sequence."""


def divergence(source: Floats, found: Floats) -> tuple[float, float]:
    """Mean KL(source || found) in nats, and the share of positions with the same most likely token."""
    kl, same = 0.0, 0
    for one, other in zip(source, found, strict=True):  # in double precision, position by position to save memory
        p, q = _log_softmax(one), _log_softmax(other)
        kl += float((np.exp(p) * (p - q)).sum())
        same += int(one.argmax() == other.argmax())
    return kl / len(source), same / len(source)


def _log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result

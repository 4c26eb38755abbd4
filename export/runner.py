"""A decoder that is being verified, as verification sees it."""

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

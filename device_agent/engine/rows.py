"""What the scheduler sees of a loaded model: rows of cached tokens that it reads into and decodes from.

A row is one sequence in the KV cache. Nothing here knows requests, text or sampling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Keys and values of a row's first `length` tokens, in memory of their own.

    `arrays` holds keys and values of each layer in turn, [kv_heads, length, head_dim], of the cache's type.
    """

    length: int
    arrays: tuple[npt.NDArray[np.generic], ...]

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """An adapter in memory: what each input of the graph's LoRA branches is, by the input's name.

    One of the same name that is loaded again is another one: nothing that was computed with either fits the other.
    """

    name: str
    tensors: Mapping[str, Floats]


class Rows(Protocol):
    """A model with rows 0 to `most_rows` - 1, all empty at first. One thread uses it at a time."""

    @property
    def context_tokens(self) -> int:
        """Tokens that a row can hold."""

    @property
    def most_rows(self) -> int:
        """How many rows there can be; 1 for a graph that reads one sequence at a time."""

    @property
    def bytes_per_token(self) -> int:
        """Cache memory that one token of a row takes."""

    def length(self, row: int) -> int:
        """Tokens cached in a row."""

    def adapt(self, row: int, lora: Lora | None) -> None:
        """Compute what is read into a row from now on with this adapter; None: with the model as it is, as at first.

        What the row holds already stays as it is. Raises BundleError for a model that takes no adapters.
        """

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        """Append `ids` (at least one) to a row.

        Returns logits [keep, vocab] of what follows each of the last `keep` of them (0 to all), valid until the next
        call. Raises ValueError if they do not fit or are no tokens, BundleError if the runtime fails; the row's
        length is then as before.
        """

    def decode(self, ids: Mapping[int, int]) -> Floats:
        """Append one token to each of the rows that are keys of `ids`: logits [len(ids), vocab], in their order.

        Valid until the next call. Raises as `read` does, and ValueError for rows with different adapters.
        """

    def truncate(self, row: int, length: int) -> None:
        """Forget a row's tokens after the first `length`."""

    def snapshot(self, row: int, length: int) -> Snapshot:
        """A copy of a row's first `length` tokens."""

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Make a row hold exactly what `snapshot` holds."""

    def shrink(self) -> None:
        """Give back memory that no cached token needs."""

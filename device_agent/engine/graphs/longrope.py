"""Texts that outgrow longrope's first table (Ding et al. 2024; Phi-3 and later).

Such a model rotates queries and keys by one table in texts of up to some length, and by another in longer ones; the
graph chooses by the length of the whole text. Keys in the cache were rotated by the table of their time, so when a
text crosses that length, in either direction, what is cached is read again, once. The graph makes that choice for all
of its rows together, so there is one row.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from device_agent.engine.graphs.prompt_graph import PromptGraph
from device_agent.engine.rows import Floats, Lora, Rows, Snapshot

CHUNK_TOKENS = 256
"""Tokens read again at once: attention's memory grows with them."""


class WideRows(Rows, Protocol):
    """Rows that can be told to take the text for a longer one."""

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1, width: int = 0) -> Floats:
        """Append `ids`, as part of a text of at least `width` tokens."""

    def attach(self, prompt: PromptGraph | None) -> None:
        """Let `prompt` read what is long enough for it."""


class LongropeRows:
    """Implements rows.Rows over the first row of others. Texts of up to `limit` tokens are short ones.

    A snapshot has one array more, int64 [1 + length]: whether the text was a long one, and its ids.
    """

    most_rows = 1

    def __init__(self, rows: WideRows, limit: int) -> None:
        self._rows = rows
        self._limit = limit
        self._ids: list[int] = []
        self._long = False

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""
        return self._rows.context_tokens

    @property
    def bytes_per_token(self) -> int:
        """Cache memory that one token takes."""
        return self._rows.bytes_per_token

    def attach(self, prompt: PromptGraph | None) -> None:
        """Let `prompt` read what is long enough for it, from now on; None: nothing."""
        self._rows.attach(prompt)

    def length(self, row: int) -> int:
        """Tokens cached. Raises ValueError for any row but 0."""
        if row:
            raise ValueError(f"there is one row, 0, and {row} is none")
        return self._rows.length(0)

    def adapt(self, row: int, lora: Lora | None) -> None:
        """As `rows.Rows`; what is read again, because a text became a long one, is read with it."""
        self.length(row)
        self._rows.adapt(0, lora)

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        """As `rows.Rows`; but if what is cached must be read again and cannot be, the row is empty afterwards."""
        del self._ids[self.length(row) :]  # forgotten since, or never read because a call failed
        is_long = len(self._ids) + len(ids) > self._limit
        width = self._limit + 1 if is_long else 0
        if is_long != self._long:
            self._long = is_long
            self._rows.truncate(0, 0)
            for start in range(0, len(self._ids), CHUNK_TOKENS):
                self._rows.read(0, self._ids[start : start + CHUNK_TOKENS], keep=0, width=width)
        logits = self._rows.read(0, ids, keep=keep, width=width)
        self._ids += ids
        return logits

    def decode(self, ids: Mapping[int, int]) -> Floats:
        """As `rows.Rows`."""
        if len(ids) != 1:
            raise ValueError(f"there is one row, and not {len(ids)}")
        ((row, token),) = ids.items()
        return self.read(row, (token,))

    def truncate(self, row: int, length: int) -> None:
        """Forget the tokens after the first `length`. Raises ValueError if there are fewer."""
        self.length(row)
        self._rows.truncate(0, length)

    def snapshot(self, row: int, length: int) -> Snapshot:
        """A copy of the first `length` tokens. Raises ValueError if there are fewer."""
        self.length(row)
        inner = self._rows.snapshot(0, length)
        return Snapshot(length, (*inner.arrays, np.asarray([self._long, *self._ids[:length]], np.int64)))

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Hold exactly what `snapshot` holds. Raises ValueError if it is none of such a row."""
        self.length(row)
        *arrays, ids = snapshot.arrays or (np.empty(0),)
        if ids.dtype != np.int64 or ids.shape != (1 + snapshot.length,):
            raise ValueError(f"{ids.dtype}{list(ids.shape)} are not the ids of {snapshot.length} tokens")
        self._rows.restore(0, Snapshot(snapshot.length, tuple(arrays)))
        self._long = bool(ids[0])
        self._ids = [int(token) for token in ids[1:]]

    def shrink(self) -> None:
        """Give back memory that no cached token needs."""
        self._rows.shrink()

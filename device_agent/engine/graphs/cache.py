"""The KV cache: buffers that start small, grow by need and can be given back.

Sizing it to a model's whole context would cost 805 MB for a 0.5 B model with a 32k window before the
first word. Here the capacity starts at a few hundred tokens and doubles, so that copying stays below
one extra pass over the final cache. Rows come by doubling too: who reads one text pays for one.

Memory that was never written to costs nothing: it is mapped, not allocated, so that a short row beside a
long one takes what its own tokens take, and what is given back goes to the system at once (the C library
keeps freed blocks of up to 32 MB, and clears them by writing when they are asked for again).
"""

import math
import mmap
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from device_agent.engine.rows import Snapshot
from edgekit.arch import ModelArch
from edgekit.contract import CACHE_VALUE_BYTES, CacheType

FIRST_CAPACITY_TOKENS = 256

Array = npt.NDArray[np.generic]


def capacity_for(needed_tokens: int, current_tokens: int, context_tokens: int) -> int:
    """The capacity to have so that `needed_tokens` fit: at least double the current one, at most the context."""
    if needed_tokens <= current_tokens:
        return current_tokens
    wanted = max(FIRST_CAPACITY_TOKENS, 2 * current_tokens, needed_tokens)
    return min(wanted, context_tokens)


def rows_for(needed_rows: int, most_rows: int) -> int:
    """How many rows to have so that `needed_rows` are there: 0, 1, 2, 4 ... and at most `most_rows`."""
    return min(most_rows, 1 << (needed_rows - 1).bit_length()) if needed_rows else 0


class KVCache:
    """Keys and values of `most_rows` sequences: per layer two arrays [places, kv_heads, capacity, head_dim] of `kind`.

    `lengths` says how many tokens each row holds; whoever appends to the buffers sets it. `places` says where a row is
    in the buffers: an operator takes neighbours, so rows that are wanted together are made neighbours.
    """

    def __init__(self, arch: ModelArch, kind: CacheType = "float32", *, most_rows: int = 1) -> None:
        self.lengths = [0] * most_rows
        self.places = list(range(most_rows))
        self.rows = 0
        self.capacity = 0
        self.buffers: list[Array] = []
        self.bytes_per_token = arch.kv_values_per_token * CACHE_VALUE_BYTES[kind]
        self._arch = arch
        self._kind: CacheType = kind
        self._dtype = np.dtype(kind)

    def settle(self, rows: Sequence[int]) -> int:
        """Give empty ones of `rows` the first places that no others' tokens are in. How many places must be there."""
        for row in rows:
            if not self.lengths[row]:
                free = [other for other, length in enumerate(self.lengths) if not length and other not in rows]
                self._exchange(row, min((row, *free), key=self.places.__getitem__))
        return 1 + max(self.places[row] for row in rows)

    def empty(self, *, most_rows: int) -> "KVCache":
        """Another cache for the same model, with nothing in it."""
        return KVCache(self._arch, self._kind, most_rows=most_rows)

    def fits(self, rows: int, tokens: int) -> bool:
        """Whether there are that many places with room for that many tokens each."""
        return rows <= self.rows and tokens <= self.capacity

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for `tokens` in each of the first `rows` places. The buffers may be new ones afterwards.

        Raises MemoryError if the system has none; everything is then as before.
        """
        if not self.fits(rows, tokens):
            self._move_to(
                max(self.rows, rows_for(rows, len(self.lengths))),
                capacity_for(tokens, self.capacity, self._arch.context),
                self.places,
            )

    def gather(self, rows: Sequence[int]) -> int:
        """Make `rows` neighbours by moving as few tokens as can be; their first place. There must be room for them.

        Whoever runs beside the others costs a step nearly what they cost, and moving a row not much more than that
        once: four rows of 200 tokens on SmolLM2 take 15.9 ms a step, and two of them without the two in between 9.9.
        """
        places = [self.places[row] for row in rows]
        if max(places) - min(places) < len(rows):
            return min(places)
        first = min(range(self.rows - len(rows) + 1), key=lambda first: self._tokens_to_move(rows, first))
        window = range(first, first + len(rows))
        strangers = [row for row, place in enumerate(self.places) if place in window and row not in rows]
        for row in rows:
            if self.places[row] not in window:
                self._swap(row, strangers.pop())
        return first

    def shrink(self) -> None:
        """Keep no more places and capacity than the cached tokens need; none for none. The buffers may be new ones."""
        used = [row for row, length in enumerate(self.lengths) if length]
        rows = rows_for(len(used), len(self.lengths))
        capacity = capacity_for(max(self.lengths), 0, self._arch.context)
        if not used:
            self.buffers, self.rows, self.capacity = [], 0, 0
        elif (rows, capacity) != (self.rows, self.capacity):
            order = sorted(range(len(self.lengths)), key=lambda row: (row not in used, self.places[row]))
            self._move_to(rows, capacity, [order.index(row) for row in range(len(order))])

    def views(self, first: int, stop: int) -> list[Array]:
        """Keys and values of each layer in turn, in the places from `first` to before `stop`; they share the memory."""
        return [buffer[first:stop] for buffer in self.buffers]

    def truncate(self, row: int, length: int) -> None:
        """Forget a row's tokens after the first `length`. Raises ValueError if there are fewer."""
        if not 0 <= length <= self.lengths[row]:
            raise ValueError(f"cannot keep {length} of {self.lengths[row]} tokens")
        self.lengths[row] = length

    def snapshot(self, row: int, length: int) -> Snapshot:
        """A copy of a row's first `length` tokens. Raises ValueError if there are fewer."""
        if not 0 <= length <= self.lengths[row]:
            raise ValueError(f"row {row} has {self.lengths[row]} tokens, not {length}")
        if not length:
            empty = np.zeros((self._arch.kv_heads, 0, self._arch.head_dim), self._dtype)
            return Snapshot(0, (empty,) * (2 * self._arch.layers))
        return Snapshot(length, tuple(buffer[self.places[row], :, :length].copy() for buffer in self.buffers))

    def check(self, snapshot: Snapshot) -> None:
        """Raise ValueError if a snapshot is not of such a cache, or longer than the context."""
        check_snapshot(snapshot, self._arch, self._dtype)

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Make a row hold what `snapshot` holds. There must be room; raises ValueError as `check` does."""
        self.check(snapshot)
        for buffer, array in zip(self.buffers if snapshot.length else (), snapshot.arrays, strict=False):
            buffer[self.places[row], :, : snapshot.length] = array
        self.lengths[row] = snapshot.length

    def _tokens_to_move(self, rows: Sequence[int], first: int) -> int:
        """For `rows` to be in the places from `first` on."""
        inside = {row for row, place in enumerate(self.places) if first <= place < first + len(rows)}
        return sum(self.lengths[row] for row in inside.symmetric_difference(rows))

    def _swap(self, row: int, other: int) -> None:
        place, away = self.places[row], self.places[other]
        length, others = self.lengths[row], self.lengths[other]
        kept = np.empty((self._arch.kv_heads, length, self._arch.head_dim), self._dtype)
        for buffer in self.buffers:
            kept[:] = buffer[place, :, :length]
            buffer[place, :, :others] = buffer[away, :, :others]
            buffer[away, :, :length] = kept
        self._exchange(row, other)

    def _exchange(self, row: int, other: int) -> None:
        self.places[row], self.places[other] = self.places[other], self.places[row]

    def _move_to(self, rows: int, capacity: int, places: Sequence[int]) -> None:
        shape = (rows, self._arch.kv_heads, capacity, self._arch.head_dim)
        moved = [_untouched(shape, self._dtype) for _ in range(2 * self._arch.layers)]
        held = [(self.places[row], places[row], length) for row, length in enumerate(self.lengths) if length]
        for number, old in enumerate(self.buffers):  # there are none at first
            for before, after, length in held:
                moved[number][after, :, :length] = old[before, :, :length]
            self.buffers[number] = moved[number]  # frees the old one: two whole caches never stand side by side
            del old
        self.buffers, self.rows, self.capacity, self.places = moved, rows, capacity, list(places)


def check_snapshot(snapshot: Snapshot, arch: ModelArch, dtype: np.dtype[np.generic]) -> None:
    """Raise ValueError if a snapshot is not of a cache of `arch` and `dtype`, or longer than the context."""
    shape = (arch.kv_heads, snapshot.length, arch.head_dim)
    if len(snapshot.arrays) != 2 * arch.layers or not 0 <= snapshot.length <= arch.context:
        raise ValueError(f"{len(snapshot.arrays)} arrays of {snapshot.length} tokens are not of this model's cache")
    for array in snapshot.arrays:
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{array.dtype}{list(array.shape)} is not of this model's cache")


def _untouched(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """Zeros that take memory only where something is written. Raises MemoryError."""
    size = math.prod(shape) * dtype.itemsize
    try:
        if sys.platform == "win32":
            memory = mmap.mmap(-1, size)
        else:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no {size} bytes for the cache") from error
    return np.frombuffer(memory, dtype).reshape(shape)

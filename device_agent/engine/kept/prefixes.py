"""Keys and values of texts that were read before, for prompts that begin as they did. Pure.

The newest texts stay in their rows (see `seats`); what must make room for others is kept here, the least recently used
leaving first. A text that is the beginning of another one is not kept twice. What was computed with one adapter is of
no use with another, or without.
"""

import collections
from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.engine.rows import Lora, Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A text's ids, and what the model made of them with this adapter; `pinned` ones stay."""

    ids: tuple[int, ...]
    snapshot: Snapshot
    pinned: bool = False
    lora: Lora | None = None

    @property
    def key(self) -> "Key":
        """There is one entry for each."""
        return self.lora, self.ids


Key = tuple[Lora | None, tuple[int, ...]]


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens the two begin with together."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


class Prefixes:
    """Entries by their ids, in the order of their last use."""

    def __init__(self) -> None:
        self._entries: collections.OrderedDict[Key, Entry] = collections.OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._entries)

    def best(self, ids: Sequence[int], lora: Lora | None = None, *, most: int) -> tuple[Entry | None, int]:
        """The entry that has the most tokens in common with the beginning of `ids`, up to `most`, and how many."""
        found: tuple[Entry | None, int] = (None, 0)
        for entry in self._of(lora):
            shared = min(common(entry.ids, ids), most)
            if shared > found[1]:
                found = entry, shared
        return found

    def use(self, entry: Entry) -> None:
        """It was of use: it leaves later than the others."""
        if entry.key in self._entries:
            self._entries.move_to_end(entry.key)

    def covers(self, ids: Sequence[int], lora: Lora | None = None) -> bool:
        """Whether an entry begins with `ids`; it then counts as used."""
        found = next((entry for entry in self._of(lora) if common(entry.ids, ids) == len(ids)), None)
        if found is not None:
            self.use(found)
        return found is not None

    def put(self, entry: Entry) -> None:
        """Keep it, in place of those that are beginnings of it. The bound is the caller's: see `make_room`."""
        shorter = [known for known in self._of(entry.lora) if common(known.ids, entry.ids) == len(known.ids)]
        for known in shorter:
            if not known.pinned or known.ids == entry.ids:
                self.drop(known)
        self._entries[entry.key] = entry
        self.nbytes += entry.snapshot.nbytes

    def drop(self, entry: Entry) -> None:
        """Forget it."""
        if self._entries.pop(entry.key, None) is not None:
            self.nbytes -= entry.snapshot.nbytes

    def forget(self, lora: Lora) -> None:
        """Drop what was computed with an adapter."""
        for entry in self._of(lora):
            self.drop(entry)

    def _of(self, lora: Lora | None) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.lora is lora]

    def make_room(self, nbytes: int, *, limit_bytes: int) -> bool:
        """Forget what was used least recently until `nbytes` more fit into the limit; False if they never will."""
        pinned = sum(entry.snapshot.nbytes for entry in self._entries.values() if entry.pinned)
        if pinned + nbytes > limit_bytes:
            return False
        for entry in [entry for entry in self._entries.values() if not entry.pinned]:
            if self.nbytes + nbytes <= limit_bytes:
                break
            self.drop(entry)
        return True

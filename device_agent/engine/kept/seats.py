"""Which text each row of the cache holds, and which row a new one gets.

A text stays in its row when its request has ended. A new request continues there if it begins as that text did (the
next turn of a chat, mostly) or takes a copy of what it shares with any other text, running ones included. What has to
make room goes to `prefixes`. Texts beside the newest one are kept within a bound of bytes, wherever they are. What one
adapter made of a text is never continued with another: each has its own texts.
"""

import logging
from collections.abc import Iterable, Sequence

from device_agent.engine.kept.prefixes import Entry, Prefixes, common
from device_agent.engine.rows import Lora, Rows, Snapshot

log = logging.getLogger(__name__)

FEWEST_TOKENS = 32
"""What is shorter is not worth a copy: reading it takes no longer than a few steps."""


class Seats:
    """The rows 0 to `slots` - 1 of a model. One thread uses it.

    `limit_bytes` bounds what is kept of texts whose requests have ended; 0 keeps nothing. The newest of them is
    exempt: it lies in memory that was needed anyway.
    """

    def __init__(
        self, rows: Rows, prefixes: Prefixes, *, slots: int, limit_bytes: int, fewest_tokens: int = FEWEST_TOKENS
    ) -> None:
        self._rows = rows
        self._prefixes = prefixes
        self._limit_bytes = limit_bytes
        self._fewest = fewest_tokens
        self._held: list[Sequence[int]] = [()] * slots
        self._loras: list[Lora | None] = [None] * slots  # with which each row's text was computed
        self._taken: set[int] = set()
        self._used = [0] * slots
        self._uses = 0

    def take(self, ids: Sequence[int], lora: Lora | None = None, *, fresh: bool = False) -> int:
        """A row for the text `ids`, with as much of it cached as is known; at least the last token is left to read.

        With `fresh` all of it is left. The list may grow while the row is taken. There must be a row that is not taken.
        Raises what `Rows.adapt` does.
        """
        row = self._vacancy()
        self._rows.adapt(row, lora)  # may fail: nothing has changed yet
        if fresh:
            self._keep(row, 0)
        elif self._limit_bytes:
            row = self._with_beginning(ids, lora, row)
            self._rows.adapt(row, lora)
        else:  # not even from those who run: how fast an answer begins would tell what others have asked
            self._rows.truncate(row, 0)
        self._held[row] = ids
        self._loras[row] = lora
        self._taken.add(row)
        self._touch(row)
        return row

    def _with_beginning(self, ids: Sequence[int], lora: Lora | None, row: int) -> int:
        """Make `row`, or a better one, hold the longest beginning of `ids` that is known anywhere; which it is."""
        home, shared = self._longest(range(len(self._held)), ids, lora)
        entry, stored = self._prefixes.best(ids, lora, most=len(ids) - 1)
        if entry is not None and stored > shared and stored >= self._fewest:
            self._clear(row)
            self._fill_from(entry, row, stored)
        elif shared < self._fewest or home == row:
            self._keep(row, common(self._text(row), ids[:-1]) if self._loras[row] is lora else 0)
        elif self._may_continue(home, shared, row):
            row = home
            self._keep(row, shared)
        else:
            self._clear(row)
            self._fill(row, self._copy(home, shared))
            self._touch(home)
            if home not in self._taken and self._rows.length(home) - shared < self._fewest:
                self._empty(home)  # it has only moved
        return row

    def catch_up(self, row: int) -> None:
        """Copy into a taken row what others have read of its text since it was taken."""
        ids = self._held[row]
        others = (other for other in range(len(self._held)) if other != row)
        home, shared = self._longest(others, ids, self._loras[row])
        if shared >= self._rows.length(row) + self._fewest:
            self._fill(row, self._copy(home, shared))

    def leave(self, row: int, *, keep: bool = True) -> None:
        """Its request has ended; the text stays unless `keep` is False or nothing is to be kept."""
        self._taken.discard(row)
        self._held[row] = tuple(self._text(row))
        self._touch(row)
        if not keep or not self._limit_bytes:
            self._empty(row)
        self._trim()

    def save(self) -> None:
        """Store the texts of ended requests as far as they may be kept: the rows are about to go."""
        for row in sorted(self._parked(), key=lambda row: self._used[row]):  # the newest last: it leaves last
            self._store(row, self._text(row), limit_bytes=self._limit_bytes)
            self._empty(row)

    def refill(self, row: int, snapshot: Snapshot) -> None:
        """Put back into a taken row what was copied from it before the rows were opened anew."""
        if snapshot.length > self._rows.length(row):
            self._fill(row, snapshot)

    def copy(self, row: int) -> Snapshot | None:
        """All of a row; None if that cannot be had."""
        return self._copy(row, self._rows.length(row))

    def forget(self, lora: Lora) -> None:
        """Empty the rows of ended requests that were computed with it."""
        for row in self._parked():
            if self._loras[row] is lora:
                self._empty(row)

    @property
    def kept(self) -> tuple[int, int]:
        """Texts of ended requests, in rows and beside them, and their bytes."""
        parked = self._parked()
        return len(parked) + len(self._prefixes), self._prefixes.nbytes + self._bytes_of(parked)

    # --- which row ------------------------------------------------------------------------------

    def _text(self, row: int) -> Sequence[int]:
        """The tokens that are cached in a row."""
        return self._held[row][: self._rows.length(row)]

    def _longest(self, rows: Iterable[int], ids: Sequence[int], lora: Lora | None) -> tuple[int, int]:
        """The row with the longest common beginning, and its length: at most all tokens but the last."""
        alike = [row for row in rows if self._loras[row] is lora]
        found = [(min(common(self._text(row), ids), len(ids) - 1), row not in self._taken, row) for row in alike]
        shared, _, row = max(found, default=(0, False, 0))
        return row, shared

    def _vacancy(self) -> int:
        """The row to overwrite: an empty one, or that used least recently once memory for what is kept is used up.

        Where it is does not matter: the cache moves together what decodes together.
        """
        full = self._bytes_of(self._parked()) + self._prefixes.nbytes > self._limit_bytes

        def price(row: int) -> tuple[bool, int, int]:
            parked = self._rows.length(row) > 0
            return parked != full, self._used[row] if parked else 0, row

        return min((row for row in range(len(self._held)) if row not in self._taken), key=price)

    def _may_continue(self, home: int, shared: int, row: int) -> bool:
        """Whether the text goes on where it is, rather than in a copy in `row`."""
        if home in self._taken:
            return False
        lost = self._rows.length(home) - shared
        return lost < self._fewest or self._rows.length(row) > 0

    def _parked(self) -> list[int]:
        return [row for row in range(len(self._held)) if row not in self._taken and self._rows.length(row)]

    def _bytes_of(self, rows: Sequence[int]) -> int:
        return sum(self._rows.length(row) for row in rows) * self._rows.bytes_per_token

    def _touch(self, row: int) -> None:
        self._uses += 1
        self._used[row] = self._uses

    # --- what is in it --------------------------------------------------------------------------

    def _keep(self, row: int, shared: int) -> None:
        """Continue in a row after its first `shared` tokens; if much else was there, a copy of it is kept."""
        if self._rows.length(row) - shared >= self._fewest:
            self._clear(row)
        self._rows.truncate(row, shared)

    def _clear(self, row: int) -> None:
        """Before a row is overwritten: a copy of its text goes beside the rows, if it is within the bound."""
        others = [other for other in self._parked() if other != row]
        self._store(row, self._text(row), limit_bytes=self._limit_bytes - self._bytes_of(others))

    def _empty(self, row: int) -> None:
        self._rows.truncate(row, 0)
        self._held[row] = ()

    def _store(self, row: int, text: Sequence[int], *, limit_bytes: int) -> None:
        if len(text) < self._fewest or self._prefixes.covers(text, self._loras[row]):
            return
        if self._prefixes.make_room(len(text) * self._rows.bytes_per_token, limit_bytes=limit_bytes):
            copy = self._copy(row, len(text))
            if copy is not None:
                self._prefixes.put(Entry(tuple(text), copy, lora=self._loras[row]))

    def _trim(self) -> None:
        """Forget what exceeds the bound: stored texts first, then those in rows, the newest excepted."""
        parked = sorted(self._parked(), key=lambda row: self._used[row])
        while len(parked) > 1 and self._bytes_of(parked) > self._limit_bytes:
            self._empty(parked.pop(0))
        self._prefixes.make_room(0, limit_bytes=max(0, self._limit_bytes - self._bytes_of(parked[:-1])))

    def _copy(self, row: int, length: int) -> Snapshot | None:
        """None, and a line in the log, if it cannot be had: the text is read again, then."""
        try:
            return self._rows.snapshot(row, length)
        except Exception as error:  # noqa: BLE001 - no memory, or a model whose cache cannot be copied
            log.warning("%d cached tokens cannot be copied: %s", length, error)
            return None

    def _fill_from(self, entry: Entry, row: int, length: int) -> None:
        if self._fill(row, entry.snapshot):
            self._rows.truncate(row, length)
            self._prefixes.use(entry)
        else:
            self._prefixes.drop(entry)

    def _fill(self, row: int, snapshot: Snapshot | None) -> bool:
        """Put it into a row, which is empty afterwards if that fails."""
        if snapshot is not None:
            try:
                self._rows.restore(row, snapshot)
            except Exception as error:  # noqa: BLE001 - no memory, or a file's snapshot of another model
                log.warning("%d kept tokens cannot be used: %s", snapshot.length, error)
            else:
                return True
        self._rows.truncate(row, 0)
        return False

"""Ledger: takes note of requests at once, and writes them on a thread of its own.

A request never waits for the disk. If that is full, slow or broken, notes wait in memory (up to a limit) and are
written when it is well again; what a key has used today is counted in memory and holds in the meantime. A damaged file
is moved aside and a new one begun.
"""

import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

from device_agent.ledger import database, report
from device_agent.ledger.days import day_of, first_day
from device_agent.ledger.report import Column, UsageRow
from device_agent.ledger.settings import LedgerSettings

if TYPE_CHECKING:
    from device_agent.http.services import Served

MOST_WAITING = 2_000
"""Notes that may wait for the disk; each further one is dropped, and counted."""

MOST_TEXT_CHARS = 32_768
_MOST_WAITING_TEXTS = 100
"""Beyond so many waiting notes texts are left out: the disk is in trouble, and memory is not for that."""

_BATCH = 500
_RETRY_S = 5.0
_PRUNE_S = 3_600.0
_OPENING_S = 10.0
_OUR_BUGS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_log = logging.getLogger(__name__)


class Ledger:
    """A book of what was served. `start` and `close` it once; everything else from any thread."""

    def __init__(self, path: Path, settings: LedgerSettings, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.settings = settings
        self.dropped = 0
        self.trouble: str | None = None
        """Why the disk does not take notes at the moment."""
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[database.Row] = deque()
        self._seen: dict[str, float] = {}
        self._written = self._noted = 0
        self._totals: dict[tuple[str, str], int] = {}
        self._closing = False
        self._opened = threading.Event()
        self._loaded = False
        self._pruned_at = self._moved_at = -math.inf
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    @classmethod
    def open(cls, home: Path, settings: LedgerSettings) -> Self:
        """The ledger of the agent in `home`; nothing is touched before `start`."""
        return cls(home / database.FILE, settings)

    def start(self) -> None:
        """Begin to write, and wait until it is known what was used today (or that the file cannot be read)."""
        self._thread.start()
        self._opened.wait(_OPENING_S)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is noted, and end. Again is harmless."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # --- taking notes -----------------------------------------------------------------------

    def note(self, served: "Served") -> None:
        """Take note of a request that has ended. Never raises, never waits for the disk."""
        day = day_of(served.at)
        with self._changed:
            at = (day, served.caller.key)
            self._totals[at] = self._totals.get(at, 0) + served.input_tokens + served.output_tokens
            if len(self._waiting) >= MOST_WAITING:
                self.dropped += 1
                return
            keep_texts = self.settings.keep_texts and len(self._waiting) < _MOST_WAITING_TEXTS
            self._waiting.append(_row(served, day, keep_texts=keep_texts))
            self._noted += 1
            self._changed.notify_all()

    def seen(self, key: str, at: float) -> None:
        """Take note that a key was used. Never raises, never waits."""
        with self._changed:
            self._seen[key] = at
            self._changed.notify_all()

    def tokens_today(self, key: str, now: float) -> int:
        """Tokens read and written for a key on the UTC day of `now`, whether written down yet or not."""
        with self._changed:
            return self._totals.get((day_of(now), key), 0)

    # --- looking back -----------------------------------------------------------------------

    def settle(self, timeout_s: float = 1.0) -> bool:
        """Wait until everything noted so far is written; False if it is not in time."""
        with self._changed:
            wanted = self._noted
            return self._changed.wait_for(lambda: self._written >= wanted or self.trouble is not None, timeout_s) and (
                self._written >= wanted
            )

    @property
    def currency(self) -> str | None:
        """Of the costs in `usage`, None if nothing has a price."""
        return None if self.settings.prices is None else self.settings.prices.currency

    @property
    def keeps_texts(self) -> bool:
        """Whether prompts and answers are written down too."""
        return self.settings.keep_texts

    def usage(self, *, days: int, group: tuple[Column, ...], key: str | None = None) -> list[UsageRow]:
        """Sums of the last `days` days, by the columns of `group`; of one key only if it is given ("": no key).

        What was noted before the call is in it. Raises InvalidRequest if there are too many rows, StorageFailed.
        """
        self.settle()
        since = first_day(self._clock(), days)
        return report.usage(self.path, since=since, group=group, key=key, prices=self.settings.prices)

    def last_used(self) -> dict[str, float]:
        """When each key was used last, by the hour. Raises StorageFailed."""
        with self._changed:
            waiting = dict(self._seen)
        return report.last_used(self.path) | waiting

    # --- the writing thread -----------------------------------------------------------------

    def _run(self) -> None:
        self._attempt()
        self._opened.set()
        while self._has_work():
            self._attempt()
        self._disconnect()

    def _has_work(self) -> bool:
        """Wait for something to do; False once it is closing and nothing is left, or nothing can be done about it."""
        with self._changed:
            if self.trouble is not None and not self._closing:
                self._changed.wait_for(lambda: self._closing, _RETRY_S)
                return True
            self._changed.wait_for(lambda: self._waiting or self._seen or self._closing, _PRUNE_S)
            return not self._closing or (self.trouble is None and bool(self._waiting or self._seen))

    def _attempt(self) -> None:
        """Write a batch. What fails is tried again later; the notes stay where they are."""
        with self._changed:
            rows, seen = list(islice(self._waiting, _BATCH)), dict(self._seen)
        try:
            self._write(rows, seen)
        except (sqlite3.Error, OSError, database.NewerDatabase) as error:
            self._disconnect()
            if isinstance(error, _OUR_BUGS):  # a note that cannot be written must not keep the others waiting
                _log.exception("bug: %d requests could not be written to the ledger", len(rows))
                self._done(len(rows), seen, lost=len(rows))
            else:
                self._failed(error)
        else:
            self._done(len(rows), seen)

    def _write(self, rows: list[database.Row], seen: dict[str, float]) -> None:
        if self._connection is None:
            self._connection = database.open_to_write(self.path)
        if not self._loaded:
            self._load(self._connection)
        if rows or seen:
            database.write(self._connection, rows, seen)
        if time.monotonic() - self._pruned_at >= _PRUNE_S:
            since = first_day(self._clock(), self.settings.retention_days)
            database.prune(self._connection, first_day=since, most_requests=self.settings.most_requests)
            self._pruned_at = time.monotonic()

    def _load(self, connection: sqlite3.Connection) -> None:
        """Add what was used before this start, yesterday too: a clock may go back a little."""
        before = database.tokens_by_key(connection, first_day=first_day(self._clock(), 2))
        with self._changed:
            for at, tokens in before.items():
                self._totals[at] = self._totals.get(at, 0) + tokens
        self._loaded = True

    def _done(self, count: int, seen: dict[str, float], *, lost: int = 0) -> None:
        with self._changed:
            for _ in range(count):
                self._waiting.popleft()
            for key, at in seen.items():
                if self._seen.get(key) == at:
                    del self._seen[key]
            self._written += count
            self.dropped += lost
            if self.trouble is not None:
                _log.warning("the ledger is written again (%d requests were dropped so far)", self.dropped)
            self.trouble = None
            self._forget_old_days()
            self._changed.notify_all()

    def _forget_old_days(self) -> None:
        since = first_day(self._clock(), 2)
        for at in [at for at in self._totals if at[0] < since]:
            del self._totals[at]

    def _failed(self, error: Exception) -> None:
        """Say so once, and move a file aside that will never be right again."""
        with self._changed:
            known, self.trouble = self.trouble, str(error)
            self._changed.notify_all()
        if known is None:
            _log.warning("the ledger %s cannot be written: %s. Requests are counted in memory.", self.path, error)
        word = "newer" if isinstance(error, database.NewerDatabase) else "damaged" if _is_damage(error) else None
        if word is not None and time.monotonic() - self._moved_at >= _PRUNE_S:  # a new one that is no better stays
            self._move_aside(word)

    def _move_aside(self, word: str) -> None:
        try:
            aside = database.move_aside(self.path, word)
        except OSError as error:
            _log.warning("it cannot be moved aside: %s", error)
            return
        _log.warning("the ledger was moved to %s, and a new one is begun", aside)
        self._moved_at = time.monotonic()
        self._loaded = True  # what was used today is in memory, or else lost
        with self._changed:
            self.trouble = None

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                _log.debug("the ledger could not be closed well: %s", error)


def _is_damage(error: Exception) -> bool:
    """Whether the file is the problem, and not the disk or another process."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGED  # without a code it is the finding of our own check


def _row(served: "Served", day: str, *, keep_texts: bool) -> database.Row:
    return (
        _finite(served.at),
        day,
        served.caller.key,
        served.model,
        served.adapter or "",
        served.sha256,
        served.dialect,
        served.input_tokens,
        served.cached_tokens,
        served.output_tokens,
        None if served.first_token_s is None else _finite(served.first_token_s),
        _finite(served.total_s),
        served.finish,
        _text(served.prompt) if keep_texts else None,
        _text(served.answer) if keep_texts else None,
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0  # SQLite would read NaN as NULL


def _text(value: str) -> str:
    """What a UTF-8 database can keep of a text."""
    return value[:MOST_TEXT_CHARS].encode("utf-8", "replace").decode()

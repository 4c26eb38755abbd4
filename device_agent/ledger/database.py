"""The ledger's file: tables, and what is done to them. One connection writes; any number may read beside it.

Write-ahead log with synchronous=FULL: a transaction that was committed survives a power cut, and one that was not
leaves no trace (https://www.sqlite.org/pragma.html#pragma_synchronous; NORMAL would lose the last ones, never half of
one). So a power cut loses requests that were still running, and those that ended within the moment that a commit takes.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

FILE = "usage.sqlite3"
VERSION = 1
"""Of the tables, kept in SQLite's user_version. Later versions add columns or tables, and a step in `_STEPS`."""

_BUSY_S = 2.0
_CHECKED_BYTES = 16 << 20
"""A file up to this size is checked whole when it is opened (some 50 ms on a small board)."""

_STEPS: Final[Mapping[int, str]] = {
    1: """
    CREATE TABLE IF NOT EXISTS request (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL, day TEXT NOT NULL,
        key TEXT NOT NULL, model TEXT NOT NULL, adapter TEXT NOT NULL, sha256 TEXT NOT NULL, dialect TEXT NOT NULL,
        input INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL,
        first_token_s REAL, total_s REAL NOT NULL, finish TEXT NOT NULL,
        prompt TEXT, answer TEXT
    );
    CREATE INDEX IF NOT EXISTS request_day ON request (day);
    CREATE TABLE IF NOT EXISTS daily (
        day TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, adapter TEXT NOT NULL,
        requests INTEGER NOT NULL, input INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL,
        PRIMARY KEY (day, key, model, adapter)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
    """,
}

Row = tuple[float, str, str, str, str, str, str, int, int, int, float | None, float, str, str | None, str | None]
"""at, day, key, model, adapter, sha256, dialect, input, cached, output, first_token_s, total_s, finish, prompt, answer.

`adapter` is "" for none, so that it can be a part of a primary key.
"""

_INSERT = """
    INSERT INTO request (at, day, key, model, adapter, sha256, dialect, input, cached, output,
                         first_token_s, total_s, finish, prompt, answer)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_ADD = """
    INSERT INTO daily (day, key, model, adapter, requests, input, cached, output) VALUES (?, ?, ?, ?, 1, ?, ?, ?)
    ON CONFLICT DO UPDATE SET requests = requests + 1, input = input + excluded.input,
                              cached = cached + excluded.cached, output = output + excluded.output
"""
_SEEN = "INSERT INTO seen (key, at) VALUES (?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)"


class NewerDatabase(Exception):
    """Made by a later version of this program, whose tables this one does not know."""


def open_to_write(path: Path) -> sqlite3.Connection:
    """The database, made or brought up to date. Raises sqlite3.Error, OSError or NewerDatabase."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would let others read; its log takes this mode too
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only heard before the first table
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        if path.stat().st_size <= _CHECKED_BYTES:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"it is damaged: {verdict}")
        _bring_up_to_date(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def version(connection: sqlite3.Connection) -> int:
    """Of the tables; 0 if there are none yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    found = version(connection)
    if found > VERSION:
        raise NewerDatabase(f"its tables have version {found}, and this edgekit knows {VERSION}")
    for step in range(found + 1, VERSION + 1):
        # One script, one transaction: a power cut leaves the version before, whole.
        connection.executescript(f"BEGIN IMMEDIATE; {_STEPS[step]} PRAGMA user_version = {step}; COMMIT;")


@contextlib.contextmanager
def open_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing. Raises sqlite3.Error, also if there is no such file."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors, such as a full disk, have undone it already
            connection.execute("ROLLBACK")
        raise


def write(connection: sqlite3.Connection, rows: Iterable[Row], seen: Mapping[str, float]) -> None:
    """Requests, and when keys were used last. Raises sqlite3.Error; then none of it is there."""
    known = list(rows)
    with transaction(connection):
        connection.executemany(_INSERT, known)
        connection.executemany(_ADD, [(row[1], row[2], row[3], row[4], *row[7:10]) for row in known])
        connection.executemany(_SEEN, list(seen.items()))


def prune(connection: sqlite3.Connection, *, first_day: str, most_requests: int) -> None:
    """Delete what is older than a day, and the oldest of too many requests; give the space back to the disk."""
    with transaction(connection):
        connection.execute("DELETE FROM request WHERE day < ?", (first_day,))
        connection.execute("DELETE FROM daily WHERE day < ?", (first_day,))
        connection.execute("DELETE FROM request WHERE id <= (SELECT max(id) FROM request) - ?", (most_requests,))
    # It takes a step for each page; `execute` would make one, a script goes on to the end.
    connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")


def tokens_by_key(connection: sqlite3.Connection, *, first_day: str) -> dict[tuple[str, str], int]:
    """Tokens read and written, by (day, key), from a day on."""
    found = connection.execute(
        "SELECT day, key, sum(input + output) FROM daily WHERE day >= ? GROUP BY day, key", (first_day,)
    )
    return {(day, key): tokens for day, key, tokens in found}


def move_aside(path: Path, word: str) -> Path:
    """Give the database and its log another name, in place of one that was moved aside before. Raises OSError."""
    aside = path.with_name(f"{path.stem}.{word}{path.suffix}")
    for ending in ("-wal", "-shm", ""):
        source, target = path.with_name(path.name + ending), aside.with_name(aside.name + ending)
        target.unlink(missing_ok=True)
        if source.exists():
            source.replace(target)
    return aside

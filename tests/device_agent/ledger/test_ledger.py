"""The ledger: nothing waits for the disk, nothing is half written, and quotas hold whatever the disk does."""

import logging
import math
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.http.services import Caller
from device_agent.ledger import database, ledger
from device_agent.ledger.database import FILE
from device_agent.ledger.ledger import Ledger
from device_agent.ledger.report import UsageRow
from device_agent.ledger.settings import LedgerSettings
from edgekit.errors import StorageFailed
from tests.device_agent.ledger.notes import MIDNIGHT, SERVED, served

WAIT_S = 20.0
"""Only ever waited for when something is broken."""

NOW = MIDNIGHT + 3_600
Begin = Callable[..., Ledger]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts ledgers of one home, and closes them."""
    begun: list[Ledger] = []

    def run(settings: LedgerSettings = LedgerSettings(), *, now: float = NOW) -> Ledger:  # noqa: B008 - a frozen record
        found = Ledger(tmp_path / FILE, settings, clock=lambda: now)
        begun.append(found)
        found.start()
        return found

    yield run
    for each in begun:
        each.close(WAIT_S)


def rows_of(path: Path, query: str = "SELECT * FROM request") -> list[tuple[Any, ...]]:
    with database.open_to_read(path) as connection:
        return connection.execute(query).fetchall()


def sums(book: Ledger) -> list[UsageRow]:
    assert book.settle(WAIT_S)
    return book.usage(days=2, group=("day", "key"))


def test_a_request_becomes_a_row_and_a_part_of_its_days_sums(begin: Begin) -> None:
    book = begin()
    book.note(served())
    book.note(served(output=7))
    book.note(served("key_b"))
    day = "2027-01-16"
    assert sums(book) == [
        UsageRow(day=day, key="key_a", requests=2, input=20, cached=8, output=10),
        UsageRow(day=day, key="key_b", requests=1, input=10, cached=4, output=3),
    ]
    first = rows_of(book.path)[0]
    row = (SERVED.at, day, "key_a", "tiny", "", "5" * 64, "chat", 10, 4, 3, 0.1, 0.5, "stop", None, None)
    assert first == (1, *row)


def test_the_file_is_for_its_owner_only_and_its_log_too(begin: Begin) -> None:
    book = begin()
    book.note(served())
    assert book.settle(WAIT_S)
    found = list(book.path.parent.iterdir())
    assert len(found) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}


def test_no_text_is_kept_unless_it_is_switched_on(begin: Begin) -> None:
    book = begin()
    book.note(replace(SERVED, prompt="a secret question", answer="a secret answer"))
    book.close(WAIT_S)
    assert not [path for path in book.path.parent.iterdir() if b"secret" in path.read_bytes()]


def test_texts_are_kept_where_it_is_switched_on_cut_and_made_writable(begin: Begin) -> None:
    book = begin(LedgerSettings(keep_texts=True))
    book.note(replace(SERVED, prompt="a question \ud800", answer="x" * 100_000))
    assert book.settle(WAIT_S)
    assert rows_of(book.path, "SELECT prompt, length(answer) FROM request") == [("a question ?", 32_768)]


def test_tokens_of_today_are_known_at_once_and_after_a_restart(begin: Begin) -> None:
    book = begin()
    book.note(served())
    assert book.tokens_today("key_a", NOW) == 13
    book.close(WAIT_S)
    again = begin()
    assert again.tokens_today("key_a", NOW) == 13
    again.note(served())
    assert again.tokens_today("key_a", NOW) == 26
    assert again.tokens_today("key_b", NOW) == 0


def test_a_request_belongs_to_the_day_when_it_came(begin: Begin) -> None:
    book = begin()
    book.note(served(at=MIDNIGHT - 1))
    book.note(served(at=MIDNIGHT))
    assert [row.day for row in sums(book)] == ["2027-01-15", "2027-01-16"]
    assert book.tokens_today("key_a", MIDNIGHT - 1) == book.tokens_today("key_a", MIDNIGHT) == 13


@pytest.mark.parametrize("at", [0.0, -5.0, 1e30, math.nan, math.inf])
def test_a_clock_that_is_wrong_harms_no_row(begin: Begin, at: float) -> None:
    book = begin()
    book.note(replace(SERVED, at=at, total_s=math.nan))
    book.note(served())
    assert book.settle(WAIT_S)
    assert len(rows_of(book.path)) == 2
    assert (book.dropped, book.trouble) == (0, None)


def test_a_clock_that_goes_back_a_day_finds_that_days_tokens(begin: Begin) -> None:
    book = begin(now=MIDNIGHT - 60)
    book.note(served(at=MIDNIGHT - 60))
    book.close(WAIT_S)
    assert begin(now=MIDNIGHT + 60).tokens_today("key_a", MIDNIGHT - 30) == 13


def test_uses_of_keys_are_remembered(begin: Begin) -> None:
    book = begin()
    book.seen("key_a", 100.0)
    assert book.last_used() == {"key_a": 100.0}
    book.close(WAIT_S)
    again = begin()
    again.seen("key_a", 50.0)  # a clock that went back
    again.close(WAIT_S)
    assert begin().last_used() == {"key_a": 100.0}


def test_closing_writes_what_is_noted_and_may_be_said_twice(begin: Begin) -> None:
    book = begin()
    for _ in range(1_200):
        book.note(served())
    book.close(WAIT_S)
    book.close(WAIT_S)
    assert len(rows_of(book.path)) == 1_200


def test_notes_from_many_threads_are_all_there(begin: Begin) -> None:
    book = begin()

    def note() -> None:
        for _ in range(50):
            book.note(served())

    threads = [threading.Thread(target=note) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.requests for row in sums(book)] == [400]
    assert book.tokens_today("key_a", NOW) == 400 * 13


# --- retention ------------------------------------------------------------------------------


def test_what_is_too_old_is_deleted(begin: Begin) -> None:
    book = begin()
    for days in range(4):
        book.note(served(at=NOW - days * 86_400))
    book.close(WAIT_S)
    begin(LedgerSettings(retention_days=2)).close(WAIT_S)
    assert rows_of(book.path, "SELECT day FROM daily") == [("2027-01-15",), ("2027-01-16",)]
    assert len(rows_of(book.path)) == 2


def test_single_requests_are_bounded_and_their_sums_stay(begin: Begin) -> None:
    book = begin()
    for _ in range(20):
        book.note(served())
    book.close(WAIT_S)
    again = begin(LedgerSettings(most_requests=5))
    assert [row[0] for row in rows_of(book.path)] == [16, 17, 18, 19, 20]
    assert [row.requests for row in sums(again)] == [20]


def test_deleted_rows_give_their_space_back(begin: Begin) -> None:
    book = begin(LedgerSettings(keep_texts=True))
    for _ in range(50):
        book.note(replace(SERVED, prompt="x" * 20_000))
        assert book.settle(WAIT_S)
    book.close(WAIT_S)
    before = book.path.stat().st_size
    begin(LedgerSettings(most_requests=1)).close(WAIT_S)
    assert before > 1_000_000
    assert book.path.stat().st_size < 200_000


# --- trouble --------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again at once."""
    monkeypatch.setattr(ledger, "_RETRY_S", 0.01)


class Disk:
    """Stands between the ledger and SQLite; `limit` pages are all that the file may have (SQLITE_FULL beyond)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limit: int | None = None
        self.broken: Exception | None = None
        self.opened = threading.Event()
        self._open = database.open_to_write
        monkeypatch.setattr(database, "open_to_write", self.open)

    def open(self, path: Path) -> sqlite3.Connection:
        self.opened.set()
        if self.broken is not None:
            raise self.broken
        connection = self._open(path)
        if self.limit is not None:
            connection.execute(f"PRAGMA max_page_count = {self.limit}")
        return connection


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def in_trouble(book: Ledger) -> str:
    with book._changed:
        assert book._changed.wait_for(lambda: book.trouble is not None, WAIT_S)
        return str(book.trouble)


@pytest.mark.usefixtures("impatient")
def test_a_full_disk_stops_no_request_and_no_quota_and_is_caught_up_with(
    begin: Begin, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.limit = 1  # the pages that are there stay, and nothing can be added
    book = begin(LedgerSettings(keep_texts=True))
    for _ in range(300):
        book.note(replace(SERVED, prompt="x" * 1_000))
    assert "full" in in_trouble(book)
    assert not book.settle(0.0)
    assert book.tokens_today("key_a", NOW) == 300 * 13
    assert book.dropped == 0
    disk.limit = None
    with book._changed:
        assert book._changed.wait_for(lambda: book.trouble is None and not book._waiting, WAIT_S)
    assert [row.requests for row in sums(book)] == [300]
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 2  # once that it began, once that it is over
    assert rows_of(book.path, "PRAGMA integrity_check") == [("ok",)]


def test_what_no_memory_is_left_for_is_dropped_and_counted_and_quotas_hold(
    begin: Begin, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MOST_WAITING", 10)
    disk.broken = sqlite3.OperationalError("attempt to write a readonly database")
    book = begin()
    for _ in range(25):
        book.note(served())
    assert "readonly" in in_trouble(book)
    assert book.dropped == 15
    assert book.tokens_today("key_a", NOW) == 25 * 13
    book.close(WAIT_S)  # ends, though nothing could be written


def test_waiting_texts_do_not_fill_memory(begin: Begin, disk: Disk) -> None:
    disk.broken = OSError(28, "No space left on device")
    book = begin(LedgerSettings(keep_texts=True))
    for _ in range(200):
        book.note(replace(SERVED, prompt="x"))
    assert sum(row[13] is not None for row in book._waiting) <= 101


@pytest.mark.usefixtures("impatient")
def test_a_folder_that_is_missing_is_waited_for(tmp_path: Path) -> None:
    home = tmp_path / "later"
    book = Ledger(home / FILE, LedgerSettings(), clock=lambda: NOW)
    book.start()
    try:
        book.note(served())
        in_trouble(book)
        home.mkdir()
        with book._changed:
            assert book._changed.wait_for(lambda: book.trouble is None and not book._waiting, WAIT_S)
    finally:
        book.close(WAIT_S)
    assert len(rows_of(book.path)) == 1


@pytest.mark.parametrize("damage", ["no database", "broken page", "wrong tables"])
def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(
    begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / FILE
    if damage == "no database":
        path.write_bytes(b"not a database" * 1_000)
    elif damage == "broken page":
        book = begin()
        for _ in range(200):
            book.note(served())
        book.close(WAIT_S)
        with path.open("r+b") as file:
            file.seek(4_096)
            file.write(b"\xaa" * 16_384)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE request (id)")
        connection.close()
    broken = path.read_bytes()
    book = begin()
    book.note(served())
    assert [row.requests for row in sums(book)] == [1]
    assert "moved to" in caplog.text
    aside = tmp_path / "usage.damaged.sqlite3"
    assert len(aside.read_bytes()) >= len(broken)
    book.close(WAIT_S)
    assert begin().tokens_today("key_a", NOW) == 13


def test_tokens_noted_before_a_file_is_moved_aside_still_count_and_later_ones_are_written(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = begin()
    book.note(served())
    assert book.settle(WAIT_S)
    real, found = database.write, [sqlite3.DatabaseError("database disk image is malformed")]

    def write(*given: Any) -> None:
        if found:
            raise found.pop()
        real(*given)

    monkeypatch.setattr(database, "write", write)
    book.note(served())
    with book._changed:
        assert book._changed.wait_for(lambda: not book._waiting, WAIT_S)
    assert book.tokens_today("key_a", NOW) == 26
    assert [row.requests for row in sums(book)] == [1]
    assert len(rows_of(tmp_path / "usage.damaged.sqlite3")) == 1


def test_a_database_of_a_later_edgekit_is_kept_for_it(begin: Begin, tmp_path: Path) -> None:
    book = begin()
    book.note(served())
    book.close(WAIT_S)
    with sqlite3.connect(book.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    older = begin()
    older.note(served())
    assert [row.requests for row in sums(older)] == [1]
    newer = sqlite3.connect(tmp_path / "usage.newer.sqlite3")
    assert newer.execute("SELECT count(*) FROM request").fetchone() == (1,)
    newer.close()


def test_a_file_that_will_not_do_is_not_moved_in_a_circle(
    begin: Begin, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.broken = sqlite3.DatabaseError("it is damaged")
    book = begin()
    book.note(served())
    in_trouble(book)
    assert caplog.text.count("moved to") == 1


def test_a_note_that_cannot_be_written_does_not_keep_the_others_waiting(begin: Begin) -> None:
    book = begin()
    nothing: Any = None
    book.note(replace(SERVED, model=nothing))
    assert book.settle(WAIT_S)
    book.note(served())
    assert book.settle(WAIT_S)
    assert len(rows_of(book.path)) == 1
    assert book.dropped == 1


def test_sums_of_a_broken_file_are_an_error_with_a_status(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 1_000)
    book = Ledger(tmp_path / FILE, LedgerSettings())
    with pytest.raises(StorageFailed) as caught:
        book.usage(days=1, group=("day",))
    assert caught.value.http_status == 503


def test_a_local_program_without_a_key_is_counted_too(begin: Begin) -> None:
    book = begin()
    book.note(replace(SERVED, caller=Caller()))
    assert [row.key for row in sums(book)] == [""]

"""What became of the last updates: kept for people, and never in anybody's way."""

from pathlib import Path

import pytest

from device_agent.sync.history import FILE, MOST, History, Told
from device_agent.sync.lock import FOLDER
from device_agent.sync.records import Ending, Outcome


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(tmp_path: Path, clock: Clock) -> History:
    (tmp_path / FOLDER).mkdir()
    return History(tmp_path, clock=clock)


def outcome(ending: Ending, release: str = "tiny-1.0", exit_code: int = 0, channel: str = "stable") -> Outcome:
    return Outcome(channel=channel, ending=ending, release=release, exit_code=exit_code, reason="because")


def test_the_newest_comes_first_and_old_ones_go(history: History) -> None:
    for i in range(MOST + 5):
        history.note("update", [outcome("installed", f"tiny-{i}.0")])
    told = history.read()
    assert [entry.release for entry in told.entries] == [f"tiny-{i}.0" for i in reversed(range(5, MOST + 5))]
    assert told.last("stable") == told.entries[0]
    assert told.last("beta") is None


def test_the_same_again_replaces_what_was_said_last(history: History, clock: Clock) -> None:
    history.note("update", [outcome("installed")])
    for clock.now in (200.0, 300.0):
        history.note("update", [outcome("current")])
    assert [(entry.at, entry.ending) for entry in history.read().entries] == [(300.0, "current"), (100.0, "installed")]


def test_when_it_last_went_well_is_kept(history: History, clock: Clock) -> None:
    history.note("update", [outcome("current"), outcome("failed", exit_code=63, channel="beta")])
    assert history.read().succeeded_at is None
    clock.now = 200.0
    history.note("update", [outcome("current"), outcome("current", channel="beta")])
    clock.now = 300.0
    history.note("update", [outcome("failed", exit_code=63)])
    assert (history.read().checked_at, history.read().succeeded_at) == (200.0, 200.0)
    history.checked()
    assert history.read().checked_at == 300.0


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xff", b'{"entries": [{}]}', b"[" * 100_000], ids=lambda raw: raw[:9])
def test_a_damaged_file_begins_anew(history: History, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / FOLDER / FILE).write_bytes(raw)
    assert history.read() == Told()
    history.note("update", [outcome("installed")])
    assert len(history.read().entries) == 1


def test_a_disk_that_cannot_be_written_is_no_error(tmp_path: Path, clock: Clock) -> None:
    history = History(tmp_path / "gone", clock=clock)
    history.note("update", [outcome("installed")])
    assert history.read() == Told()


def test_a_long_reason_is_cut(history: History) -> None:
    history.note("update", [Outcome(channel="stable", ending="failed", release=None, reason="x" * 9_999, exit_code=1)])
    assert len(history.read().entries[0].reason) == 500

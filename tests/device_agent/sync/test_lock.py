"""One updater at a time, over processes; what a crash leaves behind locks nobody out."""

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from device_agent.sync.lock import FOLDER, LOCK_FILE, Holder, holder, updating
from edgekit.errors import Busy, StorageFailed

NOW = 1_800_000_000.0
HOLD = """
import sys, time
from pathlib import Path
from device_agent.sync.lock import updating
with updating(Path(sys.argv[1]), "sync", now=time.time()):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_e04_a_second_updater_is_told_who_was_first(tmp_path: Path) -> None:
    with updating(tmp_path, "sync", now=NOW), pytest.raises(Busy) as caught, updating(tmp_path, "pin", now=NOW + 61):
        pass
    assert f"process {os.getpid()} does `sync`, for 61 seconds now" in str(caught.value)
    with updating(tmp_path, "pin", now=NOW):
        pass


def test_e04_a_second_process_is_told_too_and_a_kill_gives_the_lock_back(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=f"process {first.pid} does `sync`"), updating(tmp_path, "pin", now=NOW):
            pass
        found = holder(tmp_path)
        assert found is not None
        assert (found.pid, found.does) == (first.pid, "sync")
        first.kill()
        first.wait()
    assert (tmp_path / FOLDER / LOCK_FILE).read_bytes(), "the note of the one that was killed stays"
    assert holder(tmp_path) is None
    with updating(tmp_path, "pin", now=NOW):
        pass


def test_e04_a_note_of_a_process_id_that_was_given_anew_names_nobody(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / LOCK_FILE).write_bytes(msgspec.json.encode(Holder(os.getpid(), "sync", 1.0)))
    assert holder(tmp_path) is None


@pytest.mark.parametrize("note", [b"", b"{", b"\xff", b'{"pid": -1, "does": "x", "since": 1}', b"[]" * 9000], ids=repr)
def test_a_note_that_cannot_be_read_locks_nobody_out(tmp_path: Path, note: bytes) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / LOCK_FILE).write_bytes(note)
    assert holder(tmp_path) is None
    with updating(tmp_path, "sync", now=NOW):
        pass


def test_a_trial_that_outlives_its_updater_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A child process must not inherit it."""
    with updating(tmp_path, "sync", now=NOW):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with updating(tmp_path, "sync", now=NOW):
            pass
    finally:
        child.communicate(b"\n")


def test_nobody_holds_a_lock_that_was_never_taken(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with updating(tmp_path / "home", "sync", now=time.time()):
        assert holder(tmp_path / "home") is not None
    assert holder(tmp_path / "home") is None


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="file"), updating(tmp_path / "file" / "home", "sync", now=NOW):
        pass

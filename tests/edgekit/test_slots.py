"""A record of two slots: whatever a torn write leaves, the payload before it is read, or it is said that none is."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import StorageFailed
from edgekit.slots import MAX_SLOT_BYTES, Slots, Slotted


def written(folder: Path, *payloads: bytes) -> Slots:
    slots = Slots(folder, "state")
    for payload in payloads:
        slots.write(payload)
    return slots


def test_there_is_none_before_the_first_write(tmp_path: Path) -> None:
    assert Slots(tmp_path, "state").read() == Slotted(None, 0, 0)
    assert Slots(tmp_path / "nowhere", "state").read() == Slotted(None, 0, 0)


def test_the_last_payload_counts_and_the_one_before_stays_on_the_disk(tmp_path: Path) -> None:
    slots = written(tmp_path, b"one", b"two", b"three")
    assert slots.read() == Slots(tmp_path, "state").read() == Slotted(b"three", 3, 0)
    assert b'"two"' in slots.paths[1].read_bytes()


@given(st.text(max_size=200), st.text(max_size=200), st.data())
def test_a_write_that_was_torn_anywhere_leaves_the_payload_before_it(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    slots = written(folder, b"oldest", before.encode(), after.encode())
    raw = slots.paths[0].read_bytes()
    cut = data.draw(st.integers(0, len(raw) - 2))  # without its last line break it is whole
    filler = data.draw(st.sampled_from([b"", b"\x00", b"\xff"]))
    slots.paths[0].write_bytes(raw[:cut] + filler * (len(raw) - cut))
    found = Slots(folder, "state").read()
    assert (found.payload, found.seq, found.damaged) == (before.encode(), 2, 1)
    again = Slots(folder, "state")
    again.write(b"next")
    assert again.read() == Slotted(b"next", 3, 0)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_slot_or_damage(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    for path in Slots(folder, "state").paths:
        path.write_bytes(raw)
    assert Slots(folder, "state").read() == Slotted(None, 0, 2)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"seq":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","payload":""}',
        b'{"seq":5,"sha256":"00","payload":""}',
        b'{"seq":1,"seq":2}',
        b"[" * 100_000,
    ],
)
def test_a_slot_that_says_something_else_is_damage(tmp_path: Path, raw: bytes) -> None:
    slots = Slots(tmp_path, "state")
    slots.paths[1].write_bytes(raw)
    assert slots.read() == Slotted(None, 0, 1)


def test_what_was_damaged_is_what_is_overwritten(tmp_path: Path) -> None:
    slots = written(tmp_path, b"one", b"two")
    slots.paths[0].write_bytes(b"torn")
    slots.write(b"three")
    slots.paths[0].write_bytes(b"torn again")
    assert slots.read() == Slotted(b"two", 2, 1)


def test_a_payload_that_is_too_large_changes_nothing(tmp_path: Path) -> None:
    slots = written(tmp_path, b"one")
    with pytest.raises(StorageFailed, match="larger"):
        slots.write(b"x" * MAX_SLOT_BYTES)
    assert slots.read() == Slotted(b"one", 1, 0)


def test_a_full_disk_leaves_the_payload_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = written(tmp_path, b"one", b"two")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageFailed, match="No space"):
            slots.write(b"three")
    assert slots.read().payload in (b"two", b"three")
    assert b'"two"' in slots.paths[1].read_bytes()


def test_what_a_killed_process_left_is_on_the_disk_before_it_is_read_or_built_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = written(tmp_path, b"one", b"two")
    names: dict[int, str] = {}
    synced: list[str] = []
    opened, sync = os.open, os.fsync

    def opening(path: Path, *flags: int) -> int:
        handle = opened(path, *flags)
        names[handle] = path.name
        return handle

    def noting(handle: int) -> None:
        synced.append(names[handle])
        sync(handle)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "fsync", noting)
    expected = [*(path.name for path in slots.paths), tmp_path.name]
    again = Slots(tmp_path, "state")
    again.read()
    assert synced == expected
    again.read()
    assert synced == expected, "once in a process is enough"


@pytest.mark.parametrize(("number", "fatal"), [(errno.EROFS, False), (errno.EACCES, False), (errno.EIO, True)])
def test_a_disk_that_cannot_be_written_is_read_and_one_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, fatal: bool
) -> None:
    written(tmp_path, b"one")

    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    if fatal:
        with pytest.raises(StorageFailed):
            Slots(tmp_path, "state").read()
    else:
        assert Slots(tmp_path, "state").read().payload == b"one"

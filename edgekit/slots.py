"""A small record that survives anything: two slots, of which the older one is overwritten.

    slot 0, slot 1   JSON {"seq": n, "sha256": digest of payload, "payload": text}

A write goes to the slot with the smaller (or no valid) number and is fsynced; a read takes the valid one with the
larger number. So a write that a power cut tears leaves the slot before it, and no step relies on a rename, on links or
on a file system that keeps the order of operations. If both are damaged, that is said: it is never a fresh start.
"""

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgekit.errors import StorageFailed
from edgekit.files import fsync_folder

MAX_SLOT_BYTES = 4 << 20

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class _Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seq: int
    sha256: str
    payload: str


@dataclass(frozen=True, slots=True)
class Slotted:
    """What a read found: the payload and its number. `damaged` slots were there and could not be read."""

    payload: bytes | None
    seq: int
    damaged: int


class Slots:
    """The record called `name` in `folder`. Only one process writes at a time: its owner holds a lock."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._paths = tuple(folder / f"{name}.{i}" for i in range(2))
        self._settled = False

    @property
    def paths(self) -> tuple[Path, ...]:
        """Both files."""
        return self._paths

    def read(self) -> Slotted:
        """The newest valid payload; None if there is none. Raises StorageFailed if the disk cannot be read."""
        self._settle()
        found = [_read(path) for path in self._paths]
        valid = [slot for slot in found if isinstance(slot, _Slot)]
        newest = max(valid, key=lambda slot: slot.seq, default=None)
        damaged = sum(slot is _DAMAGED for slot in found)
        if newest is None:
            return Slotted(None, 0, damaged)
        return Slotted(newest.payload.encode(), newest.seq, damaged)

    def write(self, payload: bytes) -> int:
        """Replace the older slot; durable when this returns. Raises StorageFailed. The number of the new record."""
        self._settle()
        found = [_read(path) for path in self._paths]
        numbers = [slot.seq if isinstance(slot, _Slot) else 0 for slot in found]
        older = numbers.index(min(numbers))
        seq = max(numbers) + 1
        text = payload.decode()
        raw = msgspec.json.encode(_Slot(seq, hashlib.sha256(payload).hexdigest(), text)) + b"\n"
        if len(raw) > MAX_SLOT_BYTES:
            raise StorageFailed(f"{self._paths[older]} would be larger than {MAX_SLOT_BYTES:,} bytes")
        try:
            _overwrite(self._paths[older], raw)
        except OSError as error:
            raise StorageFailed(f"{self._paths[older]}: {error.strerror or error}") from error
        return seq

    def _settle(self) -> None:
        """Once: a process before us may have been killed between its write and its fsync.

        What it left is read as if it were on the disk, and must be before anything is built on it: a power cut would
        take it back, or tear it together with the slot that is written next. A disk that cannot be written keeps it.
        """
        if self._settled:
            return
        try:
            found = [path for path in self._paths if path.exists()]
            for path in found:
                _fsync(path)
            if found:
                fsync_folder(self._folder)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise StorageFailed(f"{self._folder}: {error.strerror or error}") from error
        self._settled = True


_DAMAGED = object()


def _read(path: Path) -> object:
    """A slot, None if there is no file, or `_DAMAGED`."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_SLOT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}") from error
    try:
        slot = msgspec.json.decode(raw, type=_Slot)
        whole = slot.seq >= 1 and hashlib.sha256(slot.payload.encode()).hexdigest() == slot.sha256
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _DAMAGED
    return slot if whole else _DAMAGED


def _overwrite(path: Path, raw: bytes) -> None:
    is_new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb", closefd=False) as stream:
            stream.write(raw)
        os.fsync(handle)
    finally:
        os.close(handle)
    if is_new:
        fsync_folder(path.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

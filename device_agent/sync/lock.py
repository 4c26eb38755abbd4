"""One updater at a time, over all processes of this machine: `edgekit serve`, `edgekit sync`, `edgekit rollback`.

The lock is the system's (edgekit.files.taken), so that a crash, a reboot or a process id that is given anew cannot
leave it behind. What the file says is only for the sentence that the second one reads.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from edgekit.errors import Busy, StorageFailed
from edgekit.files import fsync_folder, taken

FOLDER = "sync"
"""Of the agent's folder."""

LOCK_FILE = "lock"
_MOST_BYTES = 1024
_SLACK_S = 2.0
"""Clocks of processes count in ticks."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds the lock: a process, what it does, and since when (Unix seconds)."""

    pid: int
    does: str
    since: float


@contextlib.contextmanager
def updating(home: Path, does: str, *, now: float) -> Iterator[None]:
    """Nobody else changes what is installed or trusted during the block. Raises Busy at once if somebody does."""
    folder = home / FOLDER
    with contextlib.ExitStack() as held:
        try:
            _make(folder)
            held.enter_context(taken(folder / LOCK_FILE, msgspec.json.encode(Holder(os.getpid(), does, now))))
        except BlockingIOError as error:
            raise Busy(_sentence(_read(folder / LOCK_FILE), now)) from error
        except OSError as error:
            raise StorageFailed(f"{folder}: {error.strerror or error}") from error
        yield


def holder(home: Path) -> Holder | None:
    """Who is at work now, as far as one can tell without trying the lock, which might stand in somebody's way.

    None if nobody is. A note that a crash left behind counts only if its process still lives, and is no younger.
    """
    found = _read(home / FOLDER / LOCK_FILE)
    if found is None:
        return None
    try:
        return found if psutil.Process(found.pid).create_time() <= found.since + _SLACK_S else None
    except (psutil.Error, ValueError, OverflowError):
        return None


def _make(folder: Path) -> None:
    """The folder and those above it; what is written in it must not vanish with a name that was never on the disk."""
    if folder.is_dir():
        return
    _make(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    fsync_folder(folder.parent)


def _read(path: Path) -> Holder | None:
    try:
        with path.open("rb") as stream:
            return msgspec.json.decode(stream.read(_MOST_BYTES), type=Holder)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _sentence(found: Holder | None, now: float) -> str:
    if found is None:
        return "by another process"
    for_s = max(0, round(now - found.since))
    return f"process {found.pid} does `{found.does}`, for {for_s:,} seconds now"

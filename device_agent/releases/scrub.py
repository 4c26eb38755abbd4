"""Scrub: every byte of what is kept is hashed again, slowly, beside everything else; what has rotted is found.

A note for each release says with which sizes and times its files were last hashed and right. A start looks at those
alone; what has changed since, or was never noted, is hashed first. Notes are hints: one that is lost costs a hash.
"""

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

import msgspec

from device_agent.releases.records import Installed, Ref, State
from edgekit.errors import Busy
from edgekit.manifest import Sha256
from edgekit.release.manifest import ReleaseFile

log = logging.getLogger(__name__)

NOTES_FOLDER = "notes"
"""Of the store's folder."""

PIECE_BYTES = 1 << 20
BYTES_PER_S = 16 << 20
"""Slow enough for an SD card to serve others meanwhile."""
AGE_S = 86_400.0
"""After which a release is hashed again."""
WAIT_S = 60.0
"""Between looks whether one is due, and before the first one: a start has other things to read."""
RETRY_S = 900.0
"""After which one that was found damaged, and perhaps could not be repaired, is looked at again."""
_MOST_NOTE_BYTES = 4 << 20
_LOWEST_PRIORITY = 19


class Waiting(Protocol):
    """Says when to leave off (records.Stop, and threading.Event)."""

    def is_set(self) -> bool:
        """Whether to."""

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep, but not beyond that moment."""


class Shelved(Protocol):
    """What is asked of the store."""

    folder: Path

    def state(self) -> State:
        """The record."""

    def installed(self) -> tuple[Installed, ...]:
        """Releases on disk."""

    @property
    def doubts(self) -> frozenset[Ref]:
        """Those that could not be loaded."""

    def believe(self, ref: Ref) -> None:
        """One of them is right after all."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Files of a release whose bytes are not what was signed, or that cannot be read."""

    installed: Installed
    paths: tuple[str, ...]


class Stopped(Exception):
    """It was told to leave off."""


class _Seen(msgspec.Struct, frozen=True, array_like=True):
    path: str
    size: int
    mtime_ns: int


class _Note(msgspec.Struct, frozen=True):
    manifest: Sha256
    files: tuple[_Seen, ...]


def damaged(installed: Installed, pause: Callable[[int], None] = lambda _: None) -> Damage | None:
    """Hash every file; None if all are what was signed. `pause` is told of each piece, and may raise `Stopped`."""
    found = [file.path for file in installed.release.files if not _is_right(installed.folder, file, pause)]
    return Damage(installed, tuple(found)) if found else None


def _is_right(folder: Path, file: ReleaseFile, pause: Callable[[int], None]) -> bool:
    digest, size = hashlib.sha256(), 0
    try:
        handle = os.open(folder / file.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb", buffering=0) as stream:
            _forget_pages(handle)
            while piece := stream.read(PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
                if size > file.size:
                    return False
                pause(len(piece))
            _forget_pages(handle)
    except OSError as error:
        log.warning("%s cannot be read: %s", folder / file.path, error)
        return False
    return size == file.size and digest.hexdigest() == file.sha256


def _forget_pages(handle: int) -> None:
    """What is in memory says nothing about the disk, and need not stay there; pages that a model uses do."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


class Scrub:
    """Looks after the releases that a record keeps. `found` is told of damage, on the scrub's thread."""

    def __init__(
        self,
        store: Shelved,
        found: Callable[[Damage], object],
        *,
        bytes_per_s: float = BYTES_PER_S,
        wait_s: float = WAIT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._found = found
        self._bytes_per_s = bytes_per_s
        self._wait_s = wait_s
        self._clock = clock
        self._damaged: dict[Ref, float] = {}
        self._ending = Event()
        self._thread = threading.Thread(target=self._work, name="edgekit-scrub", daemon=True)

    def start(self) -> None:
        """Start the thread; once. It begins with what has changed since it was last hashed."""
        self._thread.start()

    def close(self) -> None:
        """End it, between two pieces."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()

    def due(self) -> tuple[Installed, ...]:
        """Kept releases that are to be hashed now.

        Those that could not be loaded, or look otherwise than they did the last time, come first.
        """
        kept = self._store.state().kept()
        found = [one for one in self._store.installed() if one.ref in kept]
        found = [one for one in found if self._clock() - self._damaged.get(one.ref, 0.0) >= RETRY_S]
        doubts = self._store.doubts
        changed = [one for one in found if one.ref in doubts or self._noted(one) != _look(one)]
        return (*changed, *(one for one in found if one not in changed and self._is_old(one)))

    def round(self, releases: tuple[Installed, ...], stop: Waiting) -> tuple[Damage, ...]:
        """Hash these, with pauses; what is damaged, as far as it came before `stop`.

        One that was collected meanwhile, because nobody needs it any more, is not.
        """

        def pause(size: int) -> None:
            if stop.wait(size / self._bytes_per_s):
                raise Stopped

        found = []
        with contextlib.suppress(Stopped):
            for one in releases:
                before = _look(one)
                damage = damaged(one, pause)
                if damage is not None and one.ref not in self._store.state().kept():
                    log.debug("%s went while it was hashed", one.ref.id)
                elif damage is not None:
                    self._damaged[one.ref] = self._clock()
                    found.append(damage)
                elif before is not None and before == _look(one):
                    self._write(one, before)
                    self._clear(one.ref)
        return tuple(found)

    # ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        _give_way()
        while not self._ending.wait(self._wait_s):
            for damage in self.round(self.due(), self._ending):
                self._tell(damage)

    def _tell(self, damage: Damage) -> None:
        try:
            self._found(damage)
        except Busy as problem:
            log.info("%s is damaged, and is looked at again soon: %s", damage.installed.ref.id, problem)
            self._damaged.pop(damage.installed.ref, None)
        except Exception:
            log.exception("%s is damaged, and nothing could be done", damage.installed.ref.id)

    def _clear(self, ref: Ref) -> None:
        """One that could not be loaded is right: it is to be loaded again, and looked at no more for a while."""
        if ref in self._store.doubts:
            self._store.believe(ref)
            self._damaged[ref] = self._clock()

    def _is_old(self, installed: Installed) -> bool:
        """Clocks of devices jump: a note from the future is old too."""
        try:
            return abs(self._clock() - self._path(installed).stat().st_mtime) >= AGE_S
        except OSError:
            return True

    def _path(self, installed: Installed) -> Path:
        return self._store.folder / NOTES_FOLDER / installed.ref.folder

    def _noted(self, installed: Installed) -> _Note | None:
        try:
            with self._path(installed).open("rb") as stream:
                return msgspec.json.decode(stream.read(_MOST_NOTE_BYTES), type=_Note)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _write(self, installed: Installed, note: _Note) -> None:
        try:
            self._path(installed).write_bytes(msgspec.json.encode(note))
        except OSError as error:
            log.warning("the check of %s is not noted: %s", installed.ref.id, error)


def _look(installed: Installed) -> _Note | None:
    """What the files look like now; None if one is not there."""
    try:
        return _Note(installed.ref.sha256, tuple(_seen(installed)))
    except OSError:
        return None


def _seen(installed: Installed) -> Iterator[_Seen]:
    for file in installed.release.files:
        found = (installed.folder / file.path).lstat()
        yield _Seen(file.path, found.st_size, found.st_mtime_ns)


def _give_way() -> None:
    """Linux: priorities are the threads', not the process's."""
    if hasattr(os, "setpriority") and Path("/proc/self").exists():
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)

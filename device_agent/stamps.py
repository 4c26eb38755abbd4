"""Stamps: a note that a bundle's files were hashed and found right, so that the next start need not hash them again.

Hashing Phi-2's 1.9 GB takes 1.2 s of a core at every start. A stamp holds each file's size, times, inode and device as
they were before a full check, and the hash of the manifest that the check was against. It counts only if

- every one of those numbers is still the same. Writing to a file changes its ctime, which no program can set back
  short of changing the clock; restoring a backup or copying the folder changes the inode;
- no file had been touched within two seconds of the check: a write in the same tick of the clock would show no other
  time (git's "racy" index entries are the same thing);
- it lies in the agent's own folder, belongs to this user, and nobody else may write to it or to its folder;
- it is at most a month old: what decays on the disk changes no time, and a full check now and then finds it.

Whoever can forge a stamp can write the agent's state, and need not bother with its bundles. A folder of stamps is used
only where one is given: a program that opens a bundle by itself leaves nothing behind.
"""

import contextlib
import hashlib
import logging
import os
import stat
from pathlib import Path

import msgspec

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.errors import BundleError
from edgekit.files import safe_join, write_durably

CHECKED_FOLDER = "checked"
"""Of the agent's folder (`edgekit.home`)."""
_MAX_AGE_S = 30 * 86400
_RACY_NS = 2_000_000_000
_MAX_BYTES = 4 << 20
_MOST_STAMPS = 64

log = logging.getLogger(__name__)


class FileState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the system says of a file without reading it; times in nanoseconds."""

    path: str
    size: int
    mtime: int
    ctime: int
    inode: int
    device: int


class Stamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That the bundle with this manifest was whole at `checked_at` (seconds since 1970), when its files were so."""

    manifest: str
    checked_at: int
    files: tuple[FileState, ...]


def state_of(bundle: Bundle, *, now_s: float) -> Stamp:
    """The stamp that a full check would earn that begins now. Raises BundleError or OSError: a file is not there."""
    manifest = hashlib.sha256((bundle.folder / contract.MANIFEST_FILE).read_bytes()).hexdigest()
    files = []
    for entry in bundle.manifest.files:
        found = safe_join(bundle.folder, entry.path).lstat()
        times = (found.st_mtime_ns, found.st_ctime_ns)
        files.append(FileState(entry.path, found.st_size, *times, found.st_ino, found.st_dev))
    return Stamp(manifest, int(now_s), tuple(files))


def holds(stamp: Stamp, current: Stamp) -> bool:
    """Whether what `stamp` says is still so, by the state that the files have now."""
    age = current.checked_at - stamp.checked_at
    return 0 <= age <= _MAX_AGE_S and (stamp.manifest, stamp.files) == (current.manifest, current.files)


def settled(stamp: Stamp) -> bool:
    """Whether the last change of every file is so far back that another one would have another time."""
    newest = max((max(file.mtime, file.ctime) for file in stamp.files), default=0)
    return newest + _RACY_NS < stamp.checked_at * 1_000_000_000


def is_checked(folder: Path, bundle: Bundle, *, now_s: float) -> bool:
    """Whether a stamp in `folder` says that the bundle was whole, and nothing was changed since."""
    try:
        stamp = msgspec.json.decode(_private_bytes(_file(folder, bundle)), type=Stamp)
        return holds(stamp, state_of(bundle, now_s=now_s))
    except (OSError, BundleError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # no stamp, or one that says nothing: the bundle is hashed, and gets a new one


def note_checked(folder: Path, bundle: Bundle, before: Stamp, *, now_s: float) -> bool:
    """Write the stamp after a check that began in the state `before`; False if it cannot be had.

    Nothing is written if a file was changed while it was hashed, or shortly before. Where the folder cannot be written
    one line is logged, and the next start hashes again.
    """
    try:
        if not settled(before) or not holds(before, state_of(bundle, now_s=now_s)):
            return False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _drop_oldest(folder)
        write_durably(_file(folder, bundle), msgspec.json.encode(before), mode=0o600)
    except (OSError, BundleError) as error:
        log.warning("the check of %s is not remembered: %s", bundle.folder, error)
        return False
    return True


def _file(folder: Path, bundle: Bundle) -> Path:
    name = hashlib.sha256(os.fsencode(bundle.folder.resolve())).hexdigest()[:32]
    return folder / f"{name}.json"


def _private_bytes(path: Path) -> bytes:
    """The bytes of a file of this user that nobody else could have written. Raises OSError otherwise."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(handle, "rb") as stream:
        for found in (os.fstat(handle), path.parent.stat()):
            if hasattr(os, "geteuid"):  # Windows keeps a user's data folder to the user
                others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
                if found.st_uid != os.geteuid() or others_write:
                    raise PermissionError(f"others may write to {path}")
        return stream.read(_MAX_BYTES)


def _drop_oldest(folder: Path) -> None:
    """Bundles come and go with each update: keep the newest stamps alone."""
    found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in found[: max(0, len(found) - _MOST_STAMPS + 1)]:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

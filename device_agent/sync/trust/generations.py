"""Folders of metadata: copied, fsynced, held against their digest, and removed."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgekit.files import fsync_folder

ROOTS = "root_history"
_NAME = re.compile(r"^gen-([1-9][0-9]{0,17})\Z")
_FILE = re.compile(r"^[A-Za-z0-9%._~-]{1,250}\.json\Z")


def folder_of(home: Path, number: int) -> Path:
    """Where a generation is."""
    return home / f"gen-{number}"


def numbers(home: Path) -> list[int]:
    """Of all generations that are there, named by a record or not."""
    if not home.is_dir():
        return []
    return sorted(int(match[1]) for path in home.iterdir() if (match := _NAME.match(path.name)))


def make_home(home: Path) -> None:
    """The folder and those above it, durably."""
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        fsync_folder(folder.parent)


def copy(source: Path | None, target: Path) -> None:
    """A new generation with what another one has; what a crash left under its name is removed."""
    remove(target)
    target.mkdir(mode=0o700)
    (target / ROOTS).mkdir(mode=0o700)
    if source is not None:
        for path in _files(source):
            (target / path).write_bytes((source / path).read_bytes())


def digest(folder: Path) -> str | None:
    """One SHA-256 over names and contents; None if the folder cannot be read."""
    total = hashlib.sha256()
    try:
        for path in _files(folder):
            total.update(f"{path} {hashlib.sha256((folder / path).read_bytes()).hexdigest()}\n".encode())
    except OSError:
        return None
    return total.hexdigest()


def make_durable(folder: Path) -> None:
    """Fsync all of it, and its name. Raises OSError."""
    for path in _files(folder):
        with (folder / path).open("r+b") as stream:
            os.fsync(stream.fileno())
    fsync_folder(folder / ROOTS)
    fsync_folder(folder)
    fsync_folder(folder.parent)


def keep_only(home: Path, kept: Iterable[int]) -> None:
    """Remove every other generation; one that cannot be removed now is so the next time."""
    for number in set(numbers(home)) - set(kept):
        remove(folder_of(home, number))


def remove(folder: Path) -> None:
    """A folder and what is in it, as far as possible. It is named by nothing."""
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                remove(entry)
            else:
                entry.unlink()
        folder.rmdir()


def latest_root(folder: Path) -> Path | None:
    """The newest root metadata of a generation."""
    roots = [path for path in _files(folder) if path.startswith(f"{ROOTS}/")]
    return folder / max(roots, key=_root_version) if roots else None


def roots_count(folder: Path) -> int:
    """How many versions of root a generation has."""
    return sum(path.startswith(f"{ROOTS}/") for path in _files(folder))


def _root_version(path: str) -> int:
    version = path.removeprefix(f"{ROOTS}/").partition(".")[0]
    return int(version) if version.isdecimal() else 0


def _files(folder: Path) -> Iterator[str]:
    """Relative paths of metadata files, sorted; anything else is nobody's."""
    for prefix, place in (("", folder), (f"{ROOTS}/", folder / ROOTS)):
        if place.is_dir():
            names = sorted(path.name for path in place.iterdir())
            yield from (f"{prefix}{name}" for name in names if _FILE.match(name))

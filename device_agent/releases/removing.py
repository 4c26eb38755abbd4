"""Deleting whole folders, file by file, whatever state they are in. Links are removed, never followed."""

import contextlib
import os
import stat
from pathlib import Path

WRITABLE, READABLE = 0o755, 0o555
FILE = 0o444


def remove(folder: Path) -> int:
    """Delete a folder with everything in it; the bytes that this frees. Raises OSError: the rest stays."""
    freed = 0
    set_mode(folder, WRITABLE)
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            freed += remove(Path(entry.path))
        else:
            freed += remove_file(Path(entry.path))
    folder.rmdir()
    return freed


def remove_file(path: Path) -> int:
    """Delete a file; its bytes, if no other name has them."""
    found = path.lstat()
    if os.name == "nt":  # where a file that is read only cannot be deleted
        set_mode(path, WRITABLE)
    path.unlink()
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0


def set_mode(path: Path, mode: int) -> None:
    """As far as the file system knows modes: FAT does not, and neither do files of another user."""
    with contextlib.suppress(OSError):
        path.chmod(mode)


def guard(folder: Path) -> None:
    """Make every file in it read only, and every folder below it; not `folder` itself, which is still to be renamed."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            if not os.path.islink(os.path.join(place, name)):  # noqa: PTH114, PTH118 - os.walk gives text
                set_mode(Path(place, name), FILE)
        if Path(place) != folder:
            set_mode(Path(place), READABLE)

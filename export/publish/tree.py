"""The files of a repository: what is written once stays as it is, and `timestamp.json` alone is replaced.

A number that a cut-off publish used for a role's metadata is not used again: nobody was told of those files, but a
mirror may have copied them, and mirrors believe that what has a number never changes.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from edgekit.errors import NotInRepository, PublishError
from edgekit.files import create_durably, fsync_folder, locked, safe_join, write_durably
from edgekit.release.delta import MAX_DELTA_BYTES

FOLDERS = ("metadata", "packs", "targets", "targets/releases", "targets/channels", "targets/deltas")
LOCK = ".publish.lock"
TIMESTAMP = "metadata/timestamp.json"
MAX_FILE_BYTES = MAX_DELTA_BYTES
"""The largest of those that are read whole."""

_VERSIONED = re.compile(r"^([1-9][0-9]{0,15})\.([a-z]+)\.json\Z")


def metadata_path(name: str, version: int) -> str:
    """Path of a role's metadata in the repository."""
    return f"metadata/{version}.{name}.json"


class Tree:
    """A folder with a repository's files, by their paths in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make_folders(self) -> None:
        """In an empty folder. Whoever gives the folder its name makes what is in it durable, but not what is below."""
        for name in FOLDERS:
            (self.folder / name).mkdir()
        fsync_folder(self.folder / "targets")

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return safe_join(self.folder, path).is_file()

    def read(self, path: str) -> bytes:
        """A whole file. Raises NotInRepository or PublishError (too large, or the disk says no)."""
        file = safe_join(self.folder, path)
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise PublishError(f"{file} is larger than {MAX_FILE_BYTES:,} bytes")
            return file.read_bytes()
        except FileNotFoundError as error:
            raise NotInRepository(path) from error
        except OSError as error:
            raise PublishError(f"{file}: {error.strerror or error}") from error

    def create(self, path: str, data: bytes) -> None:
        """Write a file that never changes again; one that is there with the same bytes is left. Raises PublishError."""
        file = safe_join(self.folder, path)
        try:
            create_durably(file, data)
        except FileExistsError:
            if self.read(path) != data:
                raise PublishError(f"{file} exists with other content, and what was published never changes") from None
            fsync_folder(file.parent)  # who wrote it may have been cut off before this
        except OSError as error:
            raise PublishError(f"{file}: {error.strerror or error}") from error

    def show(self, timestamp: bytes) -> None:
        """From now on this is what devices see, and it is not lost with the folder's own name. Raises PublishError."""
        try:
            write_durably(self.folder / TIMESTAMP, timestamp)
            with contextlib.suppress(PermissionError):  # of somebody else, who made this folder for us
                fsync_folder(self.folder.absolute().parent)  # whoever made it may have been cut off before this
        except OSError as error:
            raise PublishError(f"{self.folder / TIMESTAMP}: {error.strerror or error}") from error

    def versions(self, name: str) -> tuple[int, ...]:
        """Versions of a role's metadata that have a file, the oldest first."""
        found = (_VERSIONED.match(path.name) for path in (self.folder / "metadata").iterdir())
        return tuple(sorted(int(match[1]) for match in found if match and match[2] == name))

    def free_version(self, name: str) -> int:
        """The next version of a role that no file has ever had."""
        return max(self.versions(name), default=0) + 1

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One publisher at a time; others wait. Raises PublishError where nobody may write."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(self.folder / LOCK))
            except OSError as error:
                raise PublishError(f"{self.folder} cannot be written: {error.strerror or error}") from error
            yield

"""Who was made the active model, kept over restarts in a small file of the agent's folder."""

import logging
from pathlib import Path

import msgspec

from edgekit.errors import StorageFailed
from edgekit.files import write_durably
from edgekit.manifest import Name

log = logging.getLogger(__name__)

ACTIVE_FILE = "state/active.json"
"""Of the agent's folder."""

_MOST_BYTES = 4096


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    active: Name


class Remembered:
    """A file with the active model's name; None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> str | None:
        """The name, None if nothing was kept. A file that is damaged counts as none: it is written anew in time."""
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as stream:
                return msgspec.json.decode(stream.read(_MOST_BYTES), type=_Kept).active
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s cannot be read, so nobody was made active: %s", self._path, error)
            return None

    def write(self, name: str) -> None:
        """Keep a name. Raises StorageFailed."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._path, msgspec.json.encode(_Kept(name)) + b"\n")
        except OSError as error:
            raise StorageFailed(f"{self._path}: {error.strerror or error}") from error

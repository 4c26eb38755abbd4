"""Which chunks a staging folder is said to hold: one digest a line, added after each chunk.

Only advice. It is not made durable, and each chunk that it names is hashed before it counts; it saves reading the rest.
"""

import os
from pathlib import Path

from device_agent.sync.content.disk import open_plain, read_at, remove
from edgekit.release.manifest import MAX_CHUNKS

NAME = ".chunks"
"""No file of a release begins with a dot (edgekit.release.names)."""

_DIGITS = 64
_MOST_BYTES = 2 * MAX_CHUNKS * (_DIGITS + 1)


def claimed(folder: Path) -> frozenset[str] | None:
    """The digests; None if there is no journal, or one that grew beyond all reason. Raises OSError."""
    try:
        raw = read_at(folder / NAME, 0, _MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(raw) > _MOST_BYTES:
        return None
    return frozenset(line.decode() for line in raw.split(b"\n") if len(line) == _DIGITS and line.isalnum())


class Journal:
    """Open for additions until it is closed. Raises OSError."""

    def __init__(self, folder: Path, known: frozenset[str]) -> None:
        """`known` are the chunks that were found again: the journal begins anew with them."""
        remove(folder / NAME)  # and not emptied: whoever can write here may have given another file this name too
        self._handle = open_plain(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._write("".join(f"{sha256}\n" for sha256 in sorted(known)))

    def add(self, sha256: str) -> None:
        """Say that a chunk is in all of its places."""
        self._write(f"{sha256}\n")

    def close(self) -> None:
        """No more additions."""
        os.close(self._handle)

    def _write(self, text: str) -> None:
        raw = memoryview(text.encode())
        while raw:
            raw = raw[os.write(self._handle, raw) :]

"""Reads byte ranges of a file into fresh arrays, and small files whole.

Plain reads, no memory map: what a map has touched counts as resident until it is dropped, and a file
that shrinks under a map kills the process instead of raising an error.
"""

import io
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import CheckpointError, CheckpointNotFound, CorruptCheckpoint


@dataclass(frozen=True, slots=True)
class Extent:
    """`size` bytes from `offset`, counted from the start of a file."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.size


class ExtentFile:
    """A file open for reading by offset. Raises CheckpointNotFound or CheckpointError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            self._stream = io.FileIO(path)
        except FileNotFoundError as error:
            raise CheckpointNotFound(f"{path}: there is no such file") from error
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from error
        self.name = path.name
        self.size = os.fstat(self._stream.fileno()).st_size

    def read(self, extent: Extent) -> NDArray[np.uint8]:
        """The bytes as uint8 [size]. Raises CorruptCheckpoint if the file ends before."""
        if extent.end > self.size:
            raise CorruptCheckpoint(f"it ends at byte {self.size}, but byte {extent.end} is needed", self.name)
        data = np.empty(extent.size, np.uint8)
        view, done = data.data, 0
        try:
            self._stream.seek(extent.offset)
            while done < extent.size:
                count = self._stream.readinto(view[done:])
                if not count:
                    raise CorruptCheckpoint("it became shorter while it was read", self.name)
                done += count
        except OSError as error:
            raise CheckpointError(f"{self.name}: {error.strerror}") from error
        return data

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._stream.close()


def overlap(extents: Mapping[str, Extent]) -> tuple[str, str] | None:
    """Names of two extents that share a byte, or None."""
    ordered = sorted(extents.items(), key=lambda item: (item[1].offset, item[1].size))
    for (name, extent), (following, other) in itertools.pairwise(ordered):
        if extent.end > other.offset:
            return name, following
    return None


def require_finite(values: NDArray[np.float32], name: str, file: str) -> NDArray[np.float32]:
    """`values` unchanged. Raises CorruptCheckpoint if one of them is NaN or infinite."""
    if not np.isfinite(values).all():
        raise CorruptCheckpoint(f"the tensor {name!r} holds values that are NaN or infinite", file)
    return values


def read_small_file(path: Path, limit_bytes: int) -> bytes:
    """A whole file of at most `limit_bytes`. Raises CheckpointNotFound, CheckpointError or CorruptCheckpoint."""
    file = ExtentFile(path)
    try:
        if file.size > limit_bytes:
            raise CorruptCheckpoint(f"it has {file.size:,} bytes; more than {limit_bytes:,} cannot be right", file.name)
        return file.read(Extent(0, file.size)).tobytes()
    finally:
        file.close()


def read_start(path: Path, limit_bytes: int) -> bytes:
    """The first `limit_bytes` of a file, or all of a smaller one. Raises as `read_small_file` does."""
    file = ExtentFile(path)
    try:
        return file.read(Extent(0, min(file.size, limit_bytes))).tobytes()
    finally:
        file.close()


def read_json_object(path: Path, limit_bytes: int) -> dict[str, object]:
    """A JSON file whose top is an object. Raises CorruptCheckpoint otherwise."""
    try:
        found = json.loads(read_small_file(path, limit_bytes))
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"it is not valid JSON: {error}"[:500], path.name) from error
    if not isinstance(found, dict):
        raise CorruptCheckpoint("it is not a JSON object", path.name)
    return found

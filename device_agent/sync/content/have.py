"""What is on this device already. It is only said to be there: whoever reads it hashes it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.releases.records import Installed


@dataclass(frozen=True, slots=True)
class Local:
    """`size` bytes from `offset` of a file on this device."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Have:
    """Where chunks and whole files are, by their SHA-256."""

    chunks: Mapping[str, Local]
    files: Mapping[str, Local]

    @classmethod
    def of(cls, installed: Iterable[Installed]) -> "Have":
        """What these releases hold. Of several that hold the same, the first counts."""
        chunks: dict[str, Local] = {}
        files: dict[str, Local] = {}
        for one in installed:
            for file in one.release.files:
                files.setdefault(file.sha256, Local(one.folder / file.path, 0, file.size))
            for file, offset, chunk in one.release.chunks():
                if chunk.sha256 not in chunks:
                    chunks[chunk.sha256] = Local(one.folder / file.path, offset, chunk.size)
        return cls(chunks, files)

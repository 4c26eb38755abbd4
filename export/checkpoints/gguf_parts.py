"""The files that a GGUF model is in: one, or the parts that `llama-gguf-split` cuts, beside each other."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import CheckpointNotFound, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.extents import ExtentFile
from export.checkpoints.gguf_header import Header, StoredTensor, read_header

MAX_PARTS = 1000
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Parts:
    """One header over all parts, and the open file of each tensor."""

    header: Header
    files: tuple[ExtentFile, ...]
    places: Mapping[str, ExtentFile]

    def close(self) -> None:
        """Close every file."""
        _close(self.files)


def open_parts(path: Path) -> Parts:
    """Open a file and, if it is the first of several, the others.

    Raises CheckpointNotFound for a part that is not there, UnsupportedCheckpoint for another part than the first,
    CorruptCheckpoint for parts that do not belong together.
    """
    first = read_header(path)
    paths = [path, *_others(path, first)]
    headers = [first, *(read_header(other) for other in paths[1:])]
    tensors: dict[str, StoredTensor] = {}
    places: dict[str, ExtentFile] = {}
    files: list[ExtentFile] = []
    try:
        for number, (one, header) in enumerate(zip(paths, headers, strict=True)):
            if number and (_number(header, "split.no"), _number(header, "split.count")) != (number, len(paths)):
                raise CorruptCheckpoint(f"it is not part {number + 1} of {len(paths)}", one.name)
            file = ExtentFile(one)
            files.append(file)
            for name, stored in header.tensors.items():
                if name in tensors:
                    raise CorruptCheckpoint(f"the tensor {name!r} is also in {places[name].name}", one.name)
                tensors[name], places[name] = stored, file
        expected = _number(first, "split.tensors.count")
        if len(paths) > 1 and expected not in (None, len(tensors)):
            raise CorruptCheckpoint(f"it promises {expected} tensors, and its parts have {len(tensors)}", path.name)
    except BaseException:
        _close(files)
        raise
    return Parts(Header(first.metadata, tensors), tuple(files), places)


def _others(path: Path, first: Header) -> list[Path]:
    count = _number(first, "split.count") or 1
    if count == 1:
        return []
    if count > MAX_PARTS:
        raise CorruptCheckpoint(f"it claims {count} parts", path.name)
    match = _PART.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise UnsupportedCheckpoint(
            f"{path.name} is one of {count} parts, which are found by names like NAME-00001-of-{count:05}.gguf"
        )
    if _number(first, "split.no") != 0 or int(match[2]) != 1:
        raise UnsupportedCheckpoint(f"{path.name} is not the first part: give {match[1]}-00001-of-{count:05}.gguf")
    found = [path.with_name(f"{match[1]}-{number:05}-of-{count:05}.gguf") for number in range(2, count + 1)]
    for part in found:
        if not part.is_file():
            raise CheckpointNotFound(f"{part}: the part is missing; all {count} must lie beside each other")
    return found


def _number(header: Header, key: str) -> int | None:
    found = header.metadata.get(key)
    return found if type(found) is int else None


def _close(files: Iterable[ExtentFile]) -> None:
    for file in files:
        file.close()

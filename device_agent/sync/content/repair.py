"""Chunks of an installed release that its disk lost: found, and put right from the repository or another release.

Installed files are never written to: they are read only, open in a running model, and may be other releases' too. What
is damaged is put together beside, like an update, and takes the old file's name.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from device_agent.releases.records import Installed
from device_agent.sync.content import disk
from device_agent.sync.content.have import Have
from device_agent.sync.content.plan import plan
from device_agent.sync.content.seal import settle
from device_agent.sync.content.stage import Tell, stage
from device_agent.sync.records import Source, Stop
from edgekit.files import fsync_folder
from edgekit.release.manifest import Chunk, ReleaseFile


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what was signed, and the chunks that it has wrong: none if it is only too long."""

    file: ReleaseFile
    chunks: tuple[Chunk, ...]


def damaged(
    installed: Installed, *, files: Iterable[ReleaseFile] | None = None, pause: Callable[[], None] = lambda: None
) -> tuple[Damage, ...]:
    """What is wrong with a release on disk: every byte of it, or of some of its `files`, is read.

    `pause` is called after each chunk: it may wait, or leave by an error. What cannot be read is damaged.
    """
    found = []
    for file in installed.release.files if files is None else files:
        path = installed.folder / file.path
        chunks = tuple(_damaged_chunks(path, file, pause))
        if chunks or not _has_size(path, file.size):
            found.append(Damage(file, chunks))
    return tuple(found)


def _damaged_chunks(path: Path, file: ReleaseFile, pause: Callable[[], None]) -> Iterator[Chunk]:
    offset = 0
    for chunk in file.chunks:
        try:
            data = disk.read_at(path, offset, chunk.size)
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != chunk.sha256:
            yield chunk
        offset += chunk.size
        pause()


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


def repair(
    installed: Installed,
    source: Source,
    *,
    bench: Path,
    damage: Sequence[Damage],
    others: Sequence[Installed] = (),
    tell: Tell,
    stop: Stop,
    reserve_bytes: int = 0,
) -> None:
    """Replace the damaged files of a release. `others` are releases that may hold the same chunks.

    `bench` is a folder on the same disk, for this repair only; what an earlier try left in it is used, and it is gone
    at the end. Each file is replaced at once, and durably. Raises what `stage` and `seal` raise; files that were not
    replaced are as they were.
    """
    files = tuple(one.file for one in damage)
    part = msgspec.structs.replace(installed.release, files=files)
    work = plan(part, Have.of((*others, installed)), holds=source.holds)
    stage(work, bench, source, tell=tell, stop=stop, reserve_bytes=reserve_bytes)
    with disk.disk_errors(installed.folder, 0):
        for file in files:
            settle(bench, file)
        for file in files:
            _replace(bench / file.path, disk.inside(installed.folder, file.path))
        disk.remove(bench)


def _replace(new: Path, old: Path) -> None:
    new.chmod(0o444)
    if os.name == "nt":
        old.chmod(0o600)  # Windows replaces nothing that is read only
    new.replace(old)
    fsync_folder(old.parent)

"""A disk in memory that plays recorded operations again, and says what a crash would have left of them.

Files have bytes as they are and as of their last fsync; folders have entries as they are and as of theirs. Nothing
that was not fsynced is promised, and everything that was not may be there all the same (POSIX; ALICE, OSDI 2014).
`Loss` names the ways to lose that are tried.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.crashes.recorder import Op

Loss = Literal["nothing", "all", "data", "zeros", "entries", "half"]
LOSSES: tuple[Loss, ...] = ("nothing", "all", "data", "zeros", "entries", "half")
"""What was not fsynced when the crash came, and is lost:

    nothing   the process was killed: the system still writes everything
    all       power was cut, and nothing had been written yet
    data      entries had been written, data not: files have the length of their last fsync
    zeros     entries and lengths had been written, data not
    entries   data had been written, entries not: files are not there, or under their old names
    half      as `data`, but half of what was written since is there
"""


@dataclass(slots=True)
class File:
    """A file's bytes, now and as of its last fsync."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""

    def after(self, loss: Loss) -> bytes:
        """What a crash leaves."""
        now = bytes(self.now)
        if loss in ("nothing", "entries") or now == self.synced:
            return now
        if loss == "zeros":
            return self.synced[: len(now)].ljust(len(now), b"\0")
        if loss == "half":
            same = len(self.synced)
            end = same + (len(now) - same) // 2 if len(now) > same else len(now)
            middle = len(now) // 2
            return now[:end] if len(now) > same else now[:middle] + self.synced[middle:]
        return self.synced


@dataclass(slots=True)
class Folder:
    """A folder's entries, now and as of its last fsync: name to inode."""

    now: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)


Marks = tuple[str, ...]

Image = Mapping[str, bytes | None]
"""Path to bytes; None is a folder."""


class Disk:
    """Starts from what was there at the beginning (all durable), and plays operations one by one."""

    def __init__(self, base: Mapping[str, tuple[int, bytes | None]], ignored_sites: Collection[str] = ()) -> None:
        self._ignored = ignored_sites
        self._files: dict[int, File] = {}
        self._folders: dict[int, Folder] = {}
        self._moved: dict[int, tuple[int, str]] = {}
        self._root = base[""][0]
        for path, (inode, data) in sorted(base.items()):
            if data is None:
                self._folders[inode] = Folder()
            else:
                self._files[inode] = File(bytearray(data), data)
            if path:
                folder, name = self._parent(path)
                folder.now[name] = folder.synced[name] = inode

    # --- play -------------------------------------------------------------------------------------

    def play(self, op: Op) -> None:
        """One operation more."""
        if op.kind != "mark":
            getattr(self, f"_{op.kind}")(op)

    def _create(self, op: Op) -> None:
        self._files[op.inode] = File()
        self._enter(op.path, op.inode)

    def _mkdir(self, op: Op) -> None:
        self._folders[op.inode] = Folder()
        self._enter(op.path, op.inode)

    def _write(self, op: Op) -> None:
        data = self._files[op.inode].now
        if len(data) < op.offset:
            data.extend(bytes(op.offset - len(data)))
        data[op.offset : op.offset + len(op.data)] = op.data

    def _truncate(self, op: Op) -> None:
        data = self._files[op.inode].now
        if len(data) > op.offset:
            del data[op.offset :]
        else:
            data.extend(bytes(op.offset - len(data)))

    def _fsync(self, op: Op) -> None:
        if op.site in self._ignored:
            return
        if op.inode in self._files:
            file = self._files[op.inode]
            file.synced = bytes(file.now)
            return
        folder = self._folders[op.inode]
        for name, inode in folder.now.items():
            if folder.synced.get(name) != inode and inode in self._moved:
                old, old_name = self._moved.pop(inode)  # a rename is one step: once the new name lasts, the old is gone
                if self._folders[old].synced.get(old_name) == inode and (old, old_name) != (op.inode, name):
                    del self._folders[old].synced[old_name]
        folder.synced = dict(folder.now)

    def _rename(self, op: Op) -> None:
        source, name = self._parent(op.path)
        inode = source.now.pop(name)
        self._moved.setdefault(inode, (self._inode_of(source), name))
        self._enter(op.to, inode)

    def _link(self, op: Op) -> None:
        source, name = self._parent(op.path)
        self._enter(op.to, source.now[name])

    def _unlink(self, op: Op) -> None:
        folder, name = self._parent(op.path)
        del folder.now[name]

    _rmdir = _unlink

    def _enter(self, path: str, inode: int) -> None:
        folder, name = self._parent(path)
        folder.now[name] = inode

    def _parent(self, path: str) -> tuple[Folder, str]:
        *parts, name = path.split("/")
        folder = self._folders[self._root]
        for part in parts:
            folder = self._folders[folder.now[part]]
        return folder, name

    def _inode_of(self, folder: Folder) -> int:
        return next(inode for inode, other in self._folders.items() if other is folder)

    # --- go on after a kill ------------------------------------------------------------------------

    def renumbered(self, base: Mapping[str, tuple[int, bytes | None]]) -> "Disk":
        """The same disk for a recording that began with what is there now, and has numbers of its own for it."""
        numbers = {old: base[path][0] for path, old in self._paths("", self._root)}
        for inode in (*self._files, *self._folders):
            numbers.setdefault(inode, -inode)
        found = Disk(base, self._ignored)
        for inode, file in self._files.items():
            found._files[numbers[inode]] = File(bytearray(file.now), file.synced)
        for inode, folder in self._folders.items():
            now, synced = ({name: numbers[to] for name, to in one.items()} for one in (folder.now, folder.synced))
            found._folders[numbers[inode]] = Folder(now, synced)
        found._moved = {numbers[inode]: (numbers[at], name) for inode, (at, name) in self._moved.items()}
        return found

    def _paths(self, path: str, inode: int) -> Iterator[tuple[str, int]]:
        yield path, inode
        if inode in self._folders:
            for name, found in self._folders[inode].now.items():
                yield from self._paths(f"{path}/{name}" if path else name, found)

    # --- crash ------------------------------------------------------------------------------------

    def image(self, loss: Loss) -> Image:
        """What is there after a crash now."""
        return dict(self._walk("", self._root, loss))

    def _walk(self, path: str, inode: int, loss: Loss) -> Iterator[tuple[str, bytes | None]]:
        if inode in self._files:
            yield path, self._files[inode].after(loss)
            return
        folder = self._folders[inode]
        if path:
            yield path, None
        entries = folder.synced if loss in ("all", "entries") else folder.now
        for name, found in sorted(entries.items()):
            yield from self._walk(f"{path}/{name}" if path else name, found, loss)


def digest(image: Image) -> str:
    """The same for the same image."""
    found = hashlib.sha256()
    for path, data in image.items():
        found.update(f"{path}\0{'d' if data is None else len(data)}\0".encode() + (data or b""))
    return found.hexdigest()


def put(image: Image, folder: Path) -> None:
    """Write an image into an empty folder."""
    for path, data in image.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)


def crashes(disk: Disk, ops: Iterable[Op], marks: Sequence[str] = ()) -> Iterator[tuple[int, Loss, Marks, Image]]:
    """Every crash: after how many operations, what was lost, the marks so far, and what was left. No image twice.

    The same image after more marks counts as another: more was promised then.
    """
    reached, seen = list(marks), set()
    for count, op in enumerate([Op("mark"), *ops]):
        disk.play(op)
        if op.kind == "mark" and op.path:
            reached.append(op.path)
        for loss in LOSSES:
            image = disk.image(loss)
            key = (digest(image), len(reached))
            if key not in seen:
                seen.add(key)
                yield count, loss, tuple(reached), image

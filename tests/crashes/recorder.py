"""Records every operation on files below a folder that Python code makes, in order and with its bytes.

The functions of `os` and `io` that change files are replaced while a recording runs. An operation is written down
after it happened, as one on inodes and directory entries, so that `disk` can play it again without the code.
"""

import builtins
import contextlib
import io
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from unittest import mock

Kind = Literal["create", "write", "truncate", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "mark"]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. `path` (and `to`) are relative to the root; `inode` is a number of ours, never used twice.

    `site` is where the code stands that made it, as "edgekit/slots.py:57"; `edgekit/files.py` works for others, whose
    place is named too. A mark is something that a scenario wants to remember of this moment.
    """

    kind: Kind
    inode: int = 0
    path: str = ""
    to: str = ""
    offset: int = 0
    data: bytes = b""
    site: str = ""


class Recorder:
    """Use `recording`. Threads may work at once; the log has one order."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self.ops: list[Op] = []
        self._inodes: dict[tuple[int, int], int] = {}
        self._next = 1
        self._lock = threading.RLock()
        self.original = {name: getattr(os, name) for name in _REPLACED}
        self.open = io.open
        self._adopt(self.root)

    def mark(self, label: str) -> None:
        """Remember that this was reached."""
        self._log(Op("mark", path=label))

    # --- what is where ----------------------------------------------------------------------------

    def _adopt(self, folder: Path) -> None:
        """Number all that is there at the beginning, which counts as durable."""
        self.base: dict[str, tuple[int, bytes | None]] = {}
        self.base[""] = (self._number(folder), None)
        for path in sorted(folder.rglob("*")):
            data = None if path.is_dir() else path.read_bytes()
            self.base[path.relative_to(self.root).as_posix()] = (self._number(path), data)

    def _number(self, path: Path | int, *, new: bool = False) -> int:
        found = os.fstat(path) if isinstance(path, int) else os.stat(path, follow_symlinks=False)
        key = (found.st_dev, found.st_ino)
        if new or key not in self._inodes:
            self._inodes[key] = self._next
            self._next += 1
        return self._inodes[key]

    def relative(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the root, None if it is elsewhere."""
        if isinstance(path, int):
            path = self._path_of(path)
        full = os.fsdecode(path)
        if dir_fd is not None and not os.path.isabs(full):
            full = os.path.join(self._path_of(dir_fd), full)
        folder, name = os.path.split(os.path.abspath(full))
        full = os.path.join(os.path.realpath(folder), name)
        if full == str(self.root):
            return ""
        return os.path.relpath(full, self.root) if full.startswith(f"{self.root}{os.sep}") else None

    @staticmethod
    def _path_of(handle: int) -> str:
        return os.readlink(f"/proc/self/fd/{handle}")

    def inside(self, handle: int) -> bool:
        """Whether an open file is below the root."""
        path = self._path_of(handle)
        return path == str(self.root) or path.startswith(f"{self.root}{os.sep}")

    def _log(self, op: Op) -> None:
        with self._lock:
            self.ops.append(op)

    # --- what happened ----------------------------------------------------------------------------

    def opened(self, path: Any, flags: int, mode: int, dir_fd: int | None) -> int:
        """os.open."""
        with self._lock:
            name = self.relative(path, dir_fd)
            writes = flags & (os.O_WRONLY | os.O_RDWR)
            was_there = name is not None and os.path.lexists(self.root / name)
            handle: int = self.original["open"](path, flags, mode, dir_fd=dir_fd)
            if name is None or not writes:
                return handle
            if not was_there:
                self._log(Op("create", self._number(handle, new=True), name, site=_site()))
            elif flags & os.O_TRUNC:
                self._log(Op("truncate", self._number(handle), offset=0, site=_site()))
            return handle

    def wrote(self, handle: int, offset: int, data: bytes) -> None:
        """Bytes at a place of a file."""
        if self.inside(handle):
            self._log(Op("write", self._number(handle), offset=offset, data=data, site=_site()))

    def cut(self, handle: int, size: int) -> None:
        """A file has another size."""
        if self.inside(handle):
            self._log(Op("truncate", self._number(handle), offset=size, site=_site()))

    def synced(self, handle: int) -> None:
        """os.fsync, of a file or of a folder."""
        if self.inside(handle):
            self._log(Op("fsync", self._number(handle), site=_site()))

    def moved(self, kind: Literal["rename", "link"], source: str | None, target: str | None) -> None:
        """A name more, or another one."""
        if target is not None:
            assert source is not None, f"{target} came from outside of the recorded folder"
            self._log(Op(kind, path=source, to=target, site=_site()))

    def entry(self, kind: Literal["unlink", "mkdir", "rmdir"], name: str | None) -> None:
        """A directory entry that came or went."""
        if name is not None:
            inode = self._number(self.root / name, new=True) if kind == "mkdir" else 0
            self._log(Op(kind, inode, name, site=_site()))


_REPLACED = (
    *("open", "write", "pwrite", "writev", "fsync", "fdatasync", "ftruncate", "truncate", "posix_fallocate"),
    *("rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "symlink", "sendfile", "copy_file_range"),
)
_OURS = ("edgekit", "export", "device_agent")
_FILES = os.path.join("edgekit", "files.py")
_HERE = Path(__file__).resolve().parents[2]


def _site() -> str:
    """Where the product's code stands: the innermost frame of it, and for whom the room of files does it."""
    frame: FrameType | None = sys._getframe(1)
    inner = ""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(str(_HERE)):
            relative = os.path.relpath(path, _HERE)
            if relative.split(os.sep)[0] in _OURS:
                here = f"{relative}:{frame.f_lineno}"
                if relative != _FILES:
                    return f"{inner} for {here}" if inner else here
                inner = inner or here
        frame = frame.f_back
    return inner


@contextlib.contextmanager
def recording(root: Path) -> Iterator[Recorder]:
    """Record what happens to files below `root` in the block."""
    recorder = Recorder(root)
    raw = _raw_of(recorder)

    def unsupported(*_: object, **__: object) -> None:
        raise AssertionError("the recorder does not know this way to change files")

    def symlink(source: Any, target: Any, target_is_directory: bool = False, *, dir_fd: int | None = None) -> None:
        assert recorder.relative(target, dir_fd) is None, "the recorder knows no symbolic links"
        recorder.original["symlink"](source, target, target_is_directory, dir_fd=dir_fd)

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
        newline: Any = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        if not set(mode) & set("wax+"):
            return recorder.open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        binary = raw(file, mode.replace("b", "").replace("t", ""), closefd, opener or _os_open)
        if buffering == 0:
            return binary
        buffer = io.BufferedRandom(binary) if "+" in mode else io.BufferedWriter(binary)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

    replaced = {**_names(recorder), "sendfile": unsupported, "symlink": symlink, "copy_file_range": unsupported}
    with contextlib.ExitStack() as stack:
        for name in _REPLACED:
            stack.enter_context(mock.patch.object(os, name, replaced[name]))
        stack.enter_context(mock.patch.object(io, "open", opened))
        stack.enter_context(mock.patch.object(builtins, "open", opened))
        stack.enter_context(mock.patch.object(shutil, "_USE_CP_SENDFILE", new=False))
        yield recorder


def _os_open(path: Any, flags: int) -> int:
    return os.open(path, flags, 0o666)


def _raw_of(recorder: Recorder) -> type[io.FileIO]:
    """A raw file whose writes are recorded."""

    class Raw(io.FileIO):
        def write(self, data: Any, /) -> int:
            view = bytes(data)
            at = os.fstat(self.fileno()).st_size if "a" in self.mode else os.lseek(self.fileno(), 0, os.SEEK_CUR)
            count = super().write(view)
            assert count is not None
            recorder.wrote(self.fileno(), at, view[:count])
            return count

        def truncate(self, size: int | None = None, /) -> int:
            found = super().truncate(size)
            recorder.cut(self.fileno(), found)
            return found

    return Raw


def _names(recorder: Recorder) -> dict[str, Callable[..., Any]]:
    """The functions of `os`, each doing what it does and writing it down."""
    original = recorder.original

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return recorder.opened(path, flags, mode, dir_fd)

    def write(handle: int, data: Any) -> int:
        at = os.lseek(handle, 0, os.SEEK_CUR) if recorder.inside(handle) else 0
        count: int = original["write"](handle, data)
        recorder.wrote(handle, at, bytes(data)[:count])
        return count

    def pwrite(handle: int, data: Any, offset: int) -> int:
        count: int = original["pwrite"](handle, data, offset)
        recorder.wrote(handle, offset, bytes(data)[:count])
        return count

    def writev(handle: int, pieces: Any) -> int:
        return write(handle, b"".join(bytes(piece) for piece in pieces))

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        original["fsync"](number)
        recorder.synced(number)

    def ftruncate(handle: int, size: int) -> None:
        original["ftruncate"](handle, size)
        recorder.cut(handle, size)

    def truncate(path: Any, size: int) -> None:
        handle = original["open"](path, os.O_RDWR) if not isinstance(path, int) else path
        try:
            ftruncate(handle, size)
        finally:
            if handle is not path:
                os.close(handle)

    def fallocate(handle: int, offset: int, length: int) -> None:
        original["posix_fallocate"](handle, offset, length)
        recorder.cut(handle, os.fstat(handle).st_size)

    def moving(kind: Literal["rename", "link"], name: str) -> Callable[..., None]:
        def move(source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
            old, new = recorder.relative(source, src_dir_fd), recorder.relative(target, dst_dir_fd)
            original[name](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            recorder.moved(kind, old, new)

        return move

    def link(source: Any, target: Any, *, follow_symlinks: bool = True) -> None:
        assert follow_symlinks
        moving("link", "link")(source, target)

    def removing(kind: Literal["unlink", "rmdir"], name: str) -> Callable[..., None]:
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            gone = recorder.relative(path, dir_fd)
            original[name](path, dir_fd=dir_fd)
            recorder.entry(kind, gone)

        return remove

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        name = recorder.relative(path, dir_fd)
        original["mkdir"](path, mode, dir_fd=dir_fd)
        recorder.entry("mkdir", name)

    return {
        "open": open_,
        "write": write,
        "pwrite": pwrite,
        "writev": writev,
        "fsync": fsync,
        "fdatasync": fsync,
        "ftruncate": ftruncate,
        "truncate": truncate,
        "posix_fallocate": fallocate,
        "link": link,
        "mkdir": mkdir,
        "rename": moving("rename", "rename"),
        "replace": moving("rename", "replace"),
        "unlink": removing("unlink", "unlink"),
        "remove": removing("unlink", "remove"),
        "rmdir": removing("rmdir", "rmdir"),
    }

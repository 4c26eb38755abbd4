"""What the kernel keeps of this process in memory, told in hints: Linux alone; elsewhere nothing happens.

A hint changes no byte. `let_go` forgets pages of a mapped file that can be read again from it, `gather` asks for
pages of 2 MiB where memory is in full use. Both are best effort: what the kernel refuses is left as it is.

Source: madvise(2), malloc_trim(3), Documentation/admin-guide/mm/transhuge.rst.
"""

import ctypes
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_MADV_DONTNEED, _MADV_COLLAPSE = 4, 25
_HUGE = 2 << 20
_HUGE_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS = Path("/proc/self/smaps")
_RANGE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ *(.*)")
_FULL = 0.95
"""The part of a mapping that must be resident: a huge page in a sparse one would take memory that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A range of addresses; `path` is empty where no file lies below. Sizes in bytes; `own` is what was changed."""

    start: int
    end: int
    rights: str
    path: str
    resident: int
    own: int


def mappings_in(smaps: str) -> Iterator[Mapping]:
    """The mappings of a /proc/PID/smaps."""
    head: tuple[int, int, str, str] | None = None
    sizes: dict[str, int] = {}
    for line in smaps.splitlines():
        if found := _RANGE.fullmatch(line):
            if head:
                yield Mapping(*head, sizes.get("Rss", 0), sizes.get("Anonymous", 0))
            head, sizes = (int(found[1], 16), int(found[2], 16), found[3], found[4]), {}
        else:
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                sizes[name] = int(value[:-3]) * 1024
    if head:
        yield Mapping(*head, sizes.get("Rss", 0), sizes.get("Anonymous", 0))


def unchanged(mappings: Iterable[Mapping], path: str) -> Iterator[Mapping]:
    """Resident mappings of the file `path` that hold nothing but what the file says."""
    # A changed page of a private mapping exists nowhere else: to forget it would put the file's bytes back.
    return (found for found in mappings if found.path == path and found.resident and not found.own)


def in_full_use(mappings: Iterable[Mapping]) -> Iterator[Mapping]:
    """Writable memory without a file, of 2 MiB or more, of which nearly all is resident."""
    for found in mappings:
        size = found.end - found.start
        if not found.path and found.rights == "rw-p" and size >= _HUGE and found.resident >= _FULL * size:
            yield found


def let_go(path: Path) -> int:
    """Forget the unchanged pages of a mapped file, and give back freed memory; bytes that were forgotten.

    They come back by themselves, from the page cache, if somebody reads them.
    """
    libc = _libc()
    if libc is None:
        return 0
    freed = sum(
        found.resident
        for found in unchanged(mappings_in(_read(_MAPS)), str(path.resolve()))
        if not libc.madvise(found.start, found.end - found.start, _MADV_DONTNEED)
    )
    if hasattr(libc, "malloc_trim"):  # glibc alone
        libc.malloc_trim(0)
    return freed


def gather() -> int:
    """Ask for huge pages where memory is in full use: how many bytes lie in huge pages that did not before.

    Copies that memory once, 1 to 3 s of work for a gigabyte, so it belongs on a thread of its own that nobody waits
    for. 0 where the system says `never`, or has no MADV_COLLAPSE (Linux before 6.1).
    """
    libc = _libc()
    setting = _read(_HUGE_SETTING)
    if libc is None or not setting or "[never]" in setting:
        return 0
    before = _huge_bytes()
    for found in in_full_use(mappings_in(_read(_MAPS))):
        start, end = -(-found.start // _HUGE) * _HUGE, found.end // _HUGE * _HUGE
        if start < end:  # an error says that some page was not moved; the others were
            libc.madvise(start, end - start, _MADV_COLLAPSE)
    return max(0, _huge_bytes() - before)


def gather_beside() -> threading.Thread:
    """`gather` on a thread of its own, at the lowest priority that Linux gives to one."""

    def work() -> None:
        if sys.platform == "linux":  # elsewhere the number would be a process, or nothing
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        moved = gather()
        log.info("%d MiB of the model lie in huge pages now", moved >> 20)

    thread = threading.Thread(target=work, name="huge-pages", daemon=True)
    thread.start()
    return thread


def _huge_bytes() -> int:
    found = re.search(r"^AnonHugePages: +(\d+) kB$", _read(Path("/proc/self/smaps_rollup")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

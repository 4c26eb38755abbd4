"""Who has a release open: a file for each, named after its process in a way that a later one cannot be mistaken for.

    sync/leases/<pid>-<start time>-<boot id>-<tag>-<folder of the release>

A process that died leaves its files behind. They are stale if no process has that number, if the one that has it began
at another time, or if the machine was started since. Nothing here is fsynced: a power cut ends every lease.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_NAME = re.compile(r"(?P<pid>[0-9]{1,10})-(?P<start>[0-9]{1,20})-(?P<boot>[0-9a-f]{1,8})-[0-9a-f]{6}-(?P<folder>.+)")
_BOOT_CHARS = 8


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine, by its number, when it began (in whatever unit the system counts), and which boot."""

    pid: int
    start: int
    boot: str


def this_process() -> Process:
    """Who we are."""
    return Process(os.getpid(), started_at(os.getpid()) or 0, boot_id())


def started_at(pid: int) -> int | None:
    """When a process began; None if there is none.

    Linux counts ticks since the boot, which no change of the clock moves; elsewhere it is a time in seconds.
    """
    with contextlib.suppress(OSError, IndexError, ValueError):
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[19])  # proc(5): field 22, and a name may hold anything
    try:
        return int(psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError):
        return None


def boot_id() -> str:
    """Another one after each start of the machine; "0" where the system has none."""
    try:
        found = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return "0"
    return re.sub(r"[^0-9a-f]", "", found)[:_BOOT_CHARS] or "0"


class Leases:
    """The leases in `folder`, which need not be there. `me` and `started` stand for the system in tests."""

    def __init__(
        self,
        folder: Path,
        *,
        me: Callable[[], Process] = this_process,
        started: Callable[[int], int | None] = started_at,
    ) -> None:
        self._folder = folder
        self._me = me
        self._started = started

    def take(self, release: str) -> Path:
        """Note that this process has a release open, by the name of its folder; the file is the lease."""
        me = self._me()
        path = self._folder / f"{me.pid}-{me.start}-{me.boot}-{secrets.token_hex(3)}-{release}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return path

    @staticmethod
    def give_back(lease: Path) -> None:
        """It is closed; again is harmless."""
        with contextlib.suppress(OSError):
            lease.unlink()

    def held(self) -> frozenset[str]:
        """Folders of the releases that somebody has open. Stale leases are removed; what is no lease is left alone."""
        found = set()
        for path, owner, release in self._all():
            if self._lives(owner):
                found.add(release)
            else:
                self.give_back(path)
        return frozenset(found)

    def _all(self) -> Iterator[tuple[Path, Process, str]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if match := _NAME.fullmatch(entry.name):
                    owner = Process(int(match["pid"]), int(match["start"]), match["boot"])
                    yield Path(entry.path), owner, match["folder"]

    def _lives(self, owner: Process) -> bool:
        return owner.boot == self._me().boot and self._started(owner.pid) == owner.start

"""What a device's disk holds: how much, and whether all of it is needed; and what the agent's process holds."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from device_agent.releases.leases import Leases
from device_agent.releases.store import LEASES, NOTES, RELEASES, STAGING, SYNC_FOLDER, TRASH
from tests.endurance.device import Device

LOOK_S = 0.5
ORTS_FILES = frozenset({".ses"})
"""What onnxruntime leaves in the system's folder for temporary files: one for all of its processes."""
MOST_OTHER_FILES = 320
"""Of the device's folder, whatever happens: the record, what is trusted, keys, usage, and caches of 64 files each."""
MOST_OTHER_BYTES = 32 << 20


def used_bytes(folder: Path) -> int:
    """Of a folder, while others change it; a file with two names counts once."""
    found: dict[tuple[int, int], int] = {}
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                stat = (Path(path) / name).lstat()
            except FileNotFoundError:
                continue
            found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(found.values())


class Gauge:
    """The most that a folder ever held, since it was asked last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._most = 0
        self._ending = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """During the block."""
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            thread.join()

    def most(self) -> int:
        """Bytes; from here on it begins anew."""
        found, self._most = max(self._most, used_bytes(self._folder)), 0
        return found

    def _work(self) -> None:
        while not self._ending.wait(LOOK_S):
            self._most = max(self._most, used_bytes(self._folder))


@dataclass(frozen=True)
class Held:
    """What the agent's process has while a content serves: bytes of its own memory, open files, threads."""

    content: str
    rss_bytes: int
    files: int
    threads: int


def held(pid: int, content: str) -> Held:
    """By a process. Weights are mapped files, and are not counted as its own memory."""
    process = psutil.Process(pid)
    memory = process.memory_info()
    return Held(content, memory.rss - memory.shared, process.num_fds(), process.num_threads())


def leaks(device: Device) -> list[str]:
    """What is on the disk of a device at rest and is not needed by anything."""
    folder, state = device.home / SYNC_FOLDER, device.store.state()
    kept = {ref.folder for ref in state.kept()}
    found = [f"{RELEASES}/{name}" for name in sorted(_names(folder / RELEASES) ^ kept)]
    found += [f"{NOTES}/{name}" for name in sorted(_names(folder / NOTES) - kept)]
    found += [f"{TRASH}/{name}" for name in sorted(_names(folder / TRASH))]
    if len(staged := _names(folder / STAGING)) > 1:  # the one that was worked on last may be gone on with
        found.append(f"{STAGING}: {sorted(staged)}")
    stale = {lease.name for lease, owner, _ in Leases(folder / LEASES)._all() if not psutil.pid_exists(owner.pid)}
    found += [f"{LEASES}/{name}" for name in sorted(stale)]
    temporary = device.home.with_name(f"{device.home.name}.tmp")
    found += [f"temporary: {name}" for name in sorted(_names(temporary) - ORTS_FILES)]
    others = others_in(device.home)
    if len(others) > MOST_OTHER_FILES:
        found.append(f"{len(others)} files beside the releases: {sorted(map(str, others))}")
    if (size := sum(path.stat().st_size for path in others)) > MOST_OTHER_BYTES:
        found.append(f"{size:,} bytes beside the releases")
    return found


def others_in(home: Path) -> list[Path]:
    """Files that are no release's."""
    releases = home / SYNC_FOLDER / RELEASES
    return [path for path in home.rglob("*") if releases not in path.parents and path.is_file()]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

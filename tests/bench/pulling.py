"""What an update is for a device, for tests/bench/updates.py: bytes and time, cuts, rotten bits, memory."""

import contextlib
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.releases.records import Installed, Ref
from device_agent.releases.scrub import damaged
from device_agent.sync.content import Have, Plan, plan, repair, seal, stage
from device_agent.sync.transport.folder import FolderSource
from edgekit.errors import Unreachable
from edgekit.release.delta import Delta
from edgekit.release.manifest import Release
from tests.contents import Never

BIG_UPDATE = Path(__file__).parents[1] / "device_agent/sync/content/big_update.py"
MIB = 1 << 20


class Counting(FolderSource):
    """Counts what it gives; the network is cut once it gave `left_bytes`."""

    def __init__(self, folder: Path, left_bytes: int | None = None) -> None:
        super().__init__(folder)
        self.left_bytes = left_bytes
        self.sent_bytes = 0

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        """As the folder has it, until it is cut."""
        for piece in super().stream(path, start=start, length=length, size=size):
            most = len(piece) if self.left_bytes is None else min(len(piece), self.left_bytes - self.sent_bytes)
            self.sent_bytes += most
            if most:
                yield piece[:most]
            if most < len(piece):
                raise Unreachable("cut")


@dataclass(frozen=True)
class Pulled:
    """An update that was fetched: bytes (the manifest and the index too), and seconds."""

    bytes: int
    stage_s: float
    seal_s: float


class Device:
    """A folder with releases, and the repository they come from."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self._folder = folder
        self._repository = repository

    def pull(self, release: Release, delta: Delta | None, have: Sequence[Installed]) -> tuple[Pulled, Installed]:
        """Fetch it, and hold it against what was signed."""
        source, folder, manifest = Counting(self._repository), self._folder / release.id, release.to_bytes()
        begun = time.perf_counter()
        work = self._plan(release, delta, have)
        stage(work, folder, source, tell=_ignored, stop=Never())
        staged = time.perf_counter()
        seal(folder, release, manifest)
        sealed = time.perf_counter()
        index = len(delta.to_bytes()) if delta is not None else 0
        ref = Ref(
            id=release.id,
            kind=release.kind,
            sequence=release.sequence,
            sha256=hashlib.sha256(manifest).hexdigest(),
        )
        pulled = Pulled(source.sent_bytes + len(manifest) + index, staged - begun, sealed - staged)
        return pulled, Installed(ref, folder, release)

    def cuts(self, release: Release, delta: Delta | None, have: Sequence[Installed], count: int) -> list[int]:
        """Bytes that had to come twice after each of so many cuts, wherever they fell."""
        work, folder = self._plan(release, delta, have), self._folder / "cut"
        chance, wasted = random.Random(7), []
        here = 0
        for _ in range(count):
            source = Counting(self._repository, chance.randrange(1, 2 * work.cost.fetch_bytes // count))
            try:
                stage(work, folder, source, tell=_ignored, stop=Never())
            except Unreachable:
                found = self._here(work, folder)
                wasted.append(here + source.sent_bytes - found)
                here = found
            else:
                break
        shutil.rmtree(folder)
        return wasted

    def rot(self, installed: Installed, count: int) -> list[int]:
        """Bytes that came to put one flipped bit right, of so many."""
        chance, came = random.Random(11), []
        files = [file for file in installed.release.files if file.size]
        for file in chance.choices(files, weights=[file.size for file in files], k=count):
            path = installed.folder / file.path
            path.chmod(0o600)
            with path.open("r+b") as stream:
                at = chance.randrange(file.size)
                stream.seek(at)
                byte = stream.read(1)[0]
                stream.seek(at)
                stream.write(bytes([byte ^ 1 << chance.randrange(8)]))
            found = damaged(installed)
            if found is None:
                raise AssertionError(f"byte {at} of {file.path} rotted, and nobody saw it")
            source, bench = Counting(self._repository), self._folder / "bench"
            repair(installed, source, paths=found.paths, bench=bench, tell=_ignored, stop=Never())
            came.append(source.sent_bytes)
        if damaged(installed) is not None:
            raise AssertionError("it was not put right")
        return came

    def _plan(self, release: Release, delta: Delta | None, have: Sequence[Installed]) -> Plan:
        return plan(release, Have.of(have), [delta] if delta is not None else [], holds="packs")

    def _here(self, work: Plan, folder: Path) -> int:
        """Bytes that the next run need not fetch."""
        told: list[int] = []
        with contextlib.suppress(Unreachable):
            stage(work, folder, Counting(self._repository, 0), tell=told.append, stop=Never())
        return told[0]


@dataclass(frozen=True)
class Checking:
    """Speeds in MB/s, medians of rounds that took turns: reading files from the disk, and checking them too."""

    reading: float
    checking: float


def checking_speed(installed: Installed, rounds: int = 7) -> Checking:
    """How fast a release is verified, and how fast its files can be read at all. Pages are forgotten before each."""
    size = installed.release.file_bytes
    times: tuple[list[float], list[float]] = [], []
    ways: tuple[Callable[[Installed], object], ...] = (_read, damaged)
    for _ in range(rounds):
        for way, found in zip(ways, times, strict=True):
            _forget(installed)
            begun = time.perf_counter()
            way(installed)
            found.append(time.perf_counter() - begun)
    reading, checking = (size / statistics.median(found) / 1e6 for found in times)
    return Checking(reading, checking)


def memory_bytes(size_mib: int, scratch: Path) -> int:
    """What an update of so many MiB takes at its peak, beyond the program before it (big_update.py)."""
    folder = scratch / "big"
    command = [sys.executable, str(BIG_UPDATE), str(size_mib), str(folder)]
    root = BIG_UPDATE.parents[4]
    answer = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True, stdout=subprocess.PIPE, text=True
    )
    shutil.rmtree(folder)
    return int(answer.stdout.split()[0])


def _read(installed: Installed) -> None:
    buffer = bytearray(MIB)
    for file in installed.release.files:
        with (installed.folder / file.path).open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def _forget(installed: Installed) -> None:
    for file in installed.release.files:
        with (installed.folder / file.path).open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _ignored(_: int) -> None:
    """Nobody listens."""

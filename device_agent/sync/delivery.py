"""How the bytes of a release come: differences known -> plan -> stage (space first) -> seal -> a place in the store."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_agent.releases.records import Installed, Ref
from device_agent.sync import content
from device_agent.sync.content import Plan
from device_agent.sync.pace import Pace, eta_s
from device_agent.sync.records import Cost, Phase, Progress, Source, Stop, Tell, Trusting, View
from edgekit.errors import NotInRepository, SyncError
from edgekit.release import delta
from edgekit.release.delta import MAX_DELTA_BYTES, Delta
from edgekit.release.manifest import Release
from edgekit.release.names import delta_target

log = logging.getLogger(__name__)


class Shelves(Protocol):
    """What is asked of the store (device_agent/releases/store.py)."""

    def staging(self, ref: Ref) -> Path:
        """The folder in which it is put together; what is in it already stays."""

    def admit(self, ref: Ref) -> Installed:
        """A sealed folder gets its place, by one rename."""

    def installed(self) -> tuple[Installed, ...]:
        """Every release that is whole on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A release that is wanted on a channel: its manifest as it was signed."""

    channel: str
    ref: Ref
    release: Release
    manifest: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What it took: bytes that came from the source, and bytes that were here already."""

    moved_bytes: int = 0
    reused_bytes: int = 0


class Delivery:
    """`reserve_bytes` of the disk stay free. `ticks` only goes forward, in seconds."""

    def __init__(
        self,
        store: Shelves,
        trust: Trusting,
        *,
        reserve_bytes: int,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._trust = trust
        self._reserve_bytes = reserve_bytes
        self._ticks = ticks

    def is_here(self, ref: Ref) -> bool:
        """Whether the release is whole on disk already."""
        return any(one.ref.sha256 == ref.sha256 for one in self._store.installed())

    def cost(self, release: Release, view: View, source: Source) -> Cost:
        """What it would take. Raises SyncError."""
        return self._plan(release, view, source).cost

    def fetch(self, parcel: Parcel, view: View, source: Source, *, tell: Tell, stop: Stop) -> Receipt:
        """Have every byte of it in staging, each chunk verified. Resumable at any time.

        Raises NoSpace before the first byte, Unreachable, CorruptRelease, StorageFailed.
        """
        plan = self._plan(parcel.release, view, source)
        progress = _Telling(parcel, plan.cost.fetch_bytes, tell, Pace(self._ticks))
        folder = self._store.staging(parcel.ref)
        try:
            content.stage(plan, folder, source, tell=progress.fetched, stop=stop, reserve_bytes=self._reserve_bytes)
        except NotInRepository as error:
            raise self._explained(error, parcel.release, view) from error
        return Receipt(progress.moved_bytes, plan.cost.reused_bytes)

    def put_away(self, parcel: Parcel, *, tell: Tell) -> Installed:
        """Whole files are read again and held against what was signed; then it has its place. Raises CorruptRelease."""
        tell(Progress(phase="verifying", channel=parcel.channel, release=parcel.ref.id))
        content.seal(self._store.staging(parcel.ref), parcel.release, parcel.manifest)
        return self._store.admit(parcel.ref)

    # ----------------------------------------------------------------------------------------------

    def _plan(self, release: Release, view: View, source: Source) -> Plan:
        installed = self._store.installed()
        have = content.Have.of(installed)
        deltas = tuple(self._deltas(release, installed, view, source))
        return content.plan(release, have, deltas, holds=source.holds)

    def _deltas(
        self, release: Release, installed: tuple[Installed, ...], view: View, source: Source
    ) -> Iterator[Delta]:
        """Differences from what is here. They are hints: one that cannot be had costs bytes, and nothing else."""
        for base in installed:
            path = delta_target(base.ref.id, release.id)
            if path not in view.deltas:
                continue
            try:
                yield delta.parse(self._trust.target(path, source, limit=MAX_DELTA_BYTES))
            except SyncError as problem:
                log.warning("the differences from %s to %s are not used: %s", base.ref.id, release.id, problem)

    def _explained(self, error: NotInRepository, release: Release, view: View) -> NotInRepository:
        """A copy that was made for devices with a certain release lacks what only others need."""
        begin, end = "deltas/", f"..{release.id}.json"
        bases = {path[len(begin) : -len(end)] for path in view.deltas if path.endswith(end)}
        missing = sorted(bases - {one.ref.id for one in self._store.installed()})
        if not missing:
            return error
        return NotInRepository(
            f"{error.problem}; this copy may be for devices with {' or '.join(missing)}, which is not installed here"
        )


class _Telling:
    """Bytes that came, told as progress with a speed and the time that is left."""

    def __init__(self, parcel: Parcel, total_bytes: int, tell: Tell, pace: Pace) -> None:
        self._parcel = parcel
        self._total_bytes = total_bytes
        self._tell = tell
        self._pace = pace
        self._before: int | None = None
        self.moved_bytes = 0

    def fetched(self, done_bytes: int) -> None:
        """So many bytes are here by now; what the first call says came in an earlier run."""
        if self._before is None:
            self._before = done_bytes
            self._pace.begin(done_bytes)
        self.moved_bytes = done_bytes - self._before
        speed = self._pace.bytes_per_s(done_bytes)
        phase: Phase = "fetching"
        total = max(self._total_bytes, done_bytes)  # what had to come twice, came twice
        self._tell(
            Progress(
                phase=phase,
                channel=self._parcel.channel,
                release=self._parcel.ref.id,
                done_bytes=done_bytes,
                total_bytes=total,
                bytes_per_s=speed,
                eta_s=eta_s(total - done_bytes, speed),
            )
        )

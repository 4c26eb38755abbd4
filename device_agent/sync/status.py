"""What /v1/edgekit/sync says: records, and how they are made of what the rooms know. Pure, but for what it is given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

from device_agent.releases.records import Installed, Line, Ref, State
from device_agent.sensors import Disk
from device_agent.sync.history import Entry, Told
from device_agent.sync.judging import warnings
from device_agent.sync.lock import Holder
from device_agent.sync.records import Cost, Offer, Phase, Progress, View
from device_agent.sync.rooms import Rooms
from device_agent.sync.transport.address import parse
from device_agent.sync.transport.open import scheme_of
from edgekit.errors import UsageError
from edgekit.release.manifest import Kind


class ProgressReply(Struct, frozen=True, kw_only=True):
    """Where an update is; bytes are those that cross the network. `phase` "idle": nothing goes on in this process."""

    phase: Phase
    channel: str | None
    release: str | None
    done_bytes: int
    total_bytes: int
    bytes_per_s: float | None
    eta_s: float | None


class OfferReply(Struct, frozen=True, kw_only=True):
    """What a channel has for this device, as of the last look; `cost` only where there is something to fetch."""

    release: str | None
    reason: str
    cost: Cost | None


class LineReply(Struct, frozen=True, kw_only=True):
    """What one channel has brought, by the releases' ids. `warnings` are sentences that an operator must read."""

    channel: str
    active: str | None
    previous: str | None
    trial: str | None
    soaking: bool
    tries_left: int
    pin: str | None
    offered: OfferReply | None
    last: Entry | None
    warnings: Sequence[str]


class TrustReply(Struct, frozen=True, kw_only=True):
    """What is trusted of the repository; times are Unix seconds. `fresh` false: nothing new is to be installed."""

    fresh: bool
    expires: float
    root_version: int
    timestamp_version: int
    clock_reliable: bool
    releases: int


class RefusalReply(Struct, frozen=True, kw_only=True):
    """A release that failed on this device."""

    release: str
    channel: str
    reason: str
    at: float


class InstalledReply(Struct, frozen=True, kw_only=True):
    """A release that is whole on disk. `active` is whether it serves."""

    id: str
    kind: Kind
    bytes: int
    active: bool


class DiskReply(Struct, frozen=True, kw_only=True):
    """`used_bytes` are those of all installed releases, as if none shared a file."""

    free_bytes: int
    used_bytes: int


class BusyReply(Struct, frozen=True, kw_only=True):
    """Another process that is at work on the same folder."""

    pid: int
    does: str
    since: float


class SyncReply(Struct, frozen=True, kw_only=True):
    """The sync link of this device. What is not known, as on a device that was never enrolled, is None or empty.

    `problem` is why the link cannot work at all. `next_look_at` is when it looks by itself, and `fetches_at` when it
    may fetch, if that is not at any time.
    """

    object: str = "edgekit.sync"
    enrolled: bool = False
    device: str | None = None
    labels: Mapping[str, str] = {}
    repositories: Sequence[str] = ()
    state: ProgressReply
    busy: BusyReply | None = None
    problem: str | None = None
    lines: Sequence[LineReply] = ()
    trust: TrustReply | None = None
    refusals: Sequence[RefusalReply] = ()
    installed: Sequence[InstalledReply] = ()
    disk: DiskReply | None = None
    checked_at: float | None = None
    succeeded_at: float | None = None
    next_look_at: float | None = None
    fetches_at: float | None = None
    history: Sequence[Entry] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to say of an enrolled device."""

    rooms: Rooms
    record: State
    installed: tuple[Installed, ...]
    view: View | None
    offers: Mapping[str, Offer]
    told: Told
    progress: Progress
    busy: Holder | None
    disk: Disk | None
    next_look_at: float | None
    fetches_at: float | None
    problem: str | None


def not_enrolled(progress: Progress, problem: str | None) -> SyncReply:
    """Of a device that follows no repository, or cannot tell which."""
    return SyncReply(state=_progress(progress), problem=problem)


def reply(facts: Facts) -> SyncReply:
    """All of it."""
    settings = facts.rooms.settings
    record = facts.record
    return SyncReply(
        enrolled=True,
        device=facts.rooms.device.id,
        labels=facts.rooms.device.labels,
        repositories=[shown(repository) for repository in settings.repositories],
        state=_progress(facts.progress),
        busy=None
        if facts.busy is None
        else BusyReply(pid=facts.busy.pid, does=facts.busy.does, since=facts.busy.since),
        problem=facts.problem,
        lines=[_line(record.line(channel), facts) for channel in _channels(record, settings.channels)],
        trust=_trust(facts.view),
        refusals=[
            RefusalReply(release=one.release.id, channel=one.channel, reason=one.reason, at=one.at)
            for one in reversed(record.refusals)
        ],
        installed=_installed(facts.installed, record),
        disk=None if facts.disk is None else _disk(facts.disk, facts.installed),
        checked_at=facts.told.checked_at,
        succeeded_at=facts.told.succeeded_at,
        next_look_at=facts.next_look_at,
        fetches_at=facts.fetches_at,
        history=facts.told.entries,
    )


def _busy(found: Holder | None) -> BusyReply | None:
    return None if found is None else BusyReply(pid=found.pid, does=found.does, since=found.since)


def shown(repository: str) -> str:
    """An address without secrets in it."""
    try:
        return parse(repository).name if scheme_of(repository) in ("http", "https") else repository
    except UsageError:
        return "an address that cannot be read"


def _channels(record: State, followed: Sequence[str]) -> list[str]:
    """Those that are followed first, then those that once brought something."""
    return list(dict.fromkeys((*followed, *(line.channel for line in record.lines))))


def _line(line: Line, facts: Facts) -> LineReply:
    models = {one.ref.sha256: one.release.name for one in facts.installed}
    offer = facts.offers.get(line.channel)
    return LineReply(
        channel=line.channel,
        active=_id(line.active),
        previous=_id(line.previous),
        trial=_id(line.trial),
        soaking=line.soaking,
        tries_left=line.tries_left,
        pin=_id(line.pin),
        offered=None if offer is None else OfferReply(release=offer.release, reason=offer.reason, cost=offer.cost),
        last=facts.told.last(line.channel),
        warnings=[] if facts.view is None else list(warnings(line, facts.view, models)),
    )


def _id(ref: Ref | None) -> str | None:
    return None if ref is None else ref.id


def serving(record: State) -> Iterable[tuple[str, Ref]]:
    """Which release serves for each channel: the one on trial once it soaks, else the active one."""
    for line in record.lines:
        ref = line.trial if line.soaking and line.trial is not None else line.active
        if ref is not None:
            yield line.channel, ref


def _installed(installed: Sequence[Installed], record: State) -> list[InstalledReply]:
    active = {ref for _, ref in serving(record)}
    return [
        InstalledReply(id=one.ref.id, kind=one.ref.kind, bytes=one.release.file_bytes, active=one.ref in active)
        for one in installed
    ]


def _disk(disk: Disk, installed: Sequence[Installed]) -> DiskReply:
    return DiskReply(free_bytes=disk.free_bytes, used_bytes=sum(one.release.file_bytes for one in installed))


def _trust(view: View | None) -> TrustReply | None:
    if view is None:
        return None
    return TrustReply(
        fresh=view.fresh,
        expires=view.expires,
        root_version=view.root_version,
        timestamp_version=view.timestamp_version,
        clock_reliable=view.clock_reliable,
        releases=len(view.releases),
    )


def _progress(progress: Progress) -> ProgressReply:
    return ProgressReply(
        phase=progress.phase,
        channel=progress.channel,
        release=progress.release,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        bytes_per_s=progress.bytes_per_s,
        eta_s=progress.eta_s,
    )

"""What the rooms know, as /v1/edgekit/sync says it (device_agent/http/replies/sync.py). Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agent.http.replies.sync import (
    BusyReply,
    DiskReply,
    InstalledReply,
    LineReply,
    OfferReply,
    ProgressReply,
    RefusalReply,
    SyncReply,
    TrustReply,
)
from device_agent.releases.records import Installed, Line, Ref, State
from device_agent.sensors import Disk
from device_agent.sync.history import Told
from device_agent.sync.judging import warnings
from device_agent.sync.lock import Holder
from device_agent.sync.records import Offer, Progress, View

if TYPE_CHECKING:  # it leads to everything that only a device that is enrolled needs
    from device_agent.sync.rooms import Rooms


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to say of an enrolled device."""

    rooms: "Rooms"
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
    from device_agent.sync.transport.address import shown  # which a device that is not enrolled need not load

    settings = facts.rooms.settings
    record = facts.record
    return SyncReply(
        enrolled=True,
        device=facts.rooms.device.id,
        labels=facts.rooms.device.labels,
        repositories=[shown(repository) for repository in settings.repositories],
        state=_progress(facts.progress),
        busy=_busy(facts.busy),
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

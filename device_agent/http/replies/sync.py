"""What /v1/edgekit/sync says of this device's updates. Records alone; device_agent/sync/status.py makes them."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from device_agent.sync.history import Entry
from device_agent.sync.records import Cost, Phase
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

"""Doubles of the rooms that the link leads through; each does what a test tells it, and keeps what it was told."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from device_agent.releases.records import Installed, Line, Ref, State
from device_agent.releases.scrub import Damage
from device_agent.sync.delivery import Parcel, Receipt
from device_agent.sync.judging import Here
from device_agent.sync.link import Link, Parts
from device_agent.sync.records import Cost, LinkSettings, Listed, Progress, Source, Stop, Tell, View
from edgekit.errors import EdgekitError, NotInRepository
from edgekit.release.channel import Channel, Device
from edgekit.release.manifest import Kind, Release, ReleaseFile, Requires
from edgekit.release.names import channel_target, release_target

NOW = 1_800_000_000.0
SETTINGS = LinkSettings(repositories=("fake",))
HERE = Here(edgekit="1.0", onnxruntime="1.31.1", machine="x86_64", memory_bytes=8 << 30)
DEVICE = Device(id="device-1", labels={"site": "lyon"})
COST = Cost(fetch_bytes=100, delta_bytes=40, reused_bytes=900, full_bytes=1000, disk_bytes=600)


def release(
    name: str = "tiny",
    version: str = "1.0",
    *,
    sequence: int = 1,
    kind: Kind = "model",
    requires: Requires | None = None,
) -> Release:
    """A manifest without any content."""
    entry = "bundle.json" if kind == "model" else "adapter.json"
    return Release(
        format=1,
        kind=kind,
        name=name,
        version=version,
        sequence=sequence,
        files=(ReleaseFile(entry, 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", ()),),
        packs=(),
        requires=requires or Requires(),
        base="tiny" if kind == "adapter" else None,
    )


def digest(release_id: str) -> str:
    """What the SHA-256 of a manifest is called here."""
    return release_id.encode().hex()[:64].ljust(64, "0")


def ref(found: Release) -> Ref:
    return Ref(id=found.id, kind=found.kind, sequence=found.sequence, sha256=digest(found.id))


def listed(found: Release) -> Listed:
    return Listed(
        id=found.id,
        kind=found.kind,
        model=found.name,
        version=found.version,
        sequence=found.sequence,
        manifest_sha256=digest(found.id),
        manifest_bytes=len(found.to_bytes()),
        file_bytes=found.file_bytes,
    )


def channel(release_id: str, name: str = "stable", **changed: object) -> Channel:
    return Channel(format=1, name=name, version=1, release=release_id, salt="salt", **changed)  # type: ignore[arg-type]


class FakeSource:
    """A repository that nobody reads."""

    name = "fake"
    holds: Literal["packs", "files"] = "packs"

    def __init__(self) -> None:
        self.closed = False

    def read(self, path: str, *, limit: int) -> bytes:
        raise NotInRepository(path)

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        raise NotInRepository(path)

    def blame(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeTrust:
    """Trusts `view`; `problem` is raised by a refresh, `later` is done before the second one."""

    view: View
    targets: dict[str, bytes]
    problem: EdgekitError | None = None
    known: bool = True
    later: Callable[["FakeTrust"], None] = lambda _: None
    refreshed: int = 0
    was_reset: bool = False

    def refresh(self, source: Source) -> View:
        if self.refreshed == 1:
            self.later(self)
        self.refreshed += 1
        if self.problem is not None:
            raise self.problem
        return self.view

    def last(self) -> View | None:
        return self.view if self.known else None

    def target(self, path: str, source: Source | None, *, limit: int) -> bytes:
        if path not in self.targets:
            raise NotInRepository(path)
        assert len(self.targets[path]) <= limit
        return self.targets[path]

    def reset(self) -> None:
        self.was_reset = True

    def say(self, *found: Channel) -> None:
        """These channel files are signed now."""
        for one in found:
            self.targets[channel_target(one.name)] = one.to_bytes()
        names = {one.name for one in found} | self.view.channels
        self.view = replace(self.view, channels=frozenset(names))


def trusting(*releases: Release, **changed: object) -> FakeTrust:
    """A trust that lists these releases, and no channel yet."""
    view = View(
        now=NOW,
        clock_reliable=True,
        fresh=True,
        expires=NOW + 86_400,
        root_version=1,
        timestamp_version=7,
        releases={one.id: listed(one) for one in releases},
        floors={},
        channels=frozenset(),
        deltas=frozenset(),
    )
    return FakeTrust(replace(view, **changed), {release_target(one.id): one.to_bytes() for one in releases})  # type: ignore[arg-type]


@dataclass
class FakeStore:
    """The record in memory."""

    kept: State = field(default_factory=State)
    here: list[Installed] = field(default_factory=list)
    collected: int = 0
    folder: Path = Path("sync")
    wanted: tuple[str, ...] = ()

    def state(self) -> State:
        return self.kept

    def write(self, state: State) -> None:
        self.kept = state

    def change(self, event: Callable[[State], State]) -> State:
        self.kept = event(self.kept)
        return self.kept

    def collect(self, wanted: Collection[Ref] = ()) -> int:
        self.collected += 1
        self.wanted = tuple(ref.id for ref in wanted)
        return 0

    def seen(self) -> tuple[State, int]:
        return self.kept, 1

    def staging(self, ref: Ref) -> Path:
        return self.folder / ref.folder

    def installed(self) -> tuple[Installed, ...]:
        return tuple(self.here)


@dataclass
class FakeDelivery:
    """Brings everything at once, unless `problem` is raised while it is fetched, or `unsound` when it is sealed."""

    here: set[str] = field(default_factory=set)
    problem: EdgekitError | OSError | None = None
    unsound: EdgekitError | None = None
    fetched: list[str] = field(default_factory=list)
    put: list[str] = field(default_factory=list)

    def is_here(self, ref: Ref) -> bool:
        return ref.id in self.here

    def cost(self, release: Release, view: View, source: Source) -> Cost:
        return COST

    def fetch(self, parcel: Parcel, view: View, source: Source, *, tell: Tell, stop: Stop) -> Receipt:
        tell(Progress(phase="fetching", channel=parcel.channel, release=parcel.ref.id, total_bytes=100))
        self.fetched.append(parcel.ref.id)
        if self.problem is not None:
            raise self.problem
        return Receipt(moved_bytes=100, reused_bytes=900)

    def put_away(self, parcel: Parcel, *, tell: Tell) -> Installed:
        if self.unsound is not None:
            raise self.unsound
        self.put.append(parcel.ref.id)
        self.here.add(parcel.ref.id)
        return Installed(parcel.ref, Path(parcel.ref.folder), parcel.release)


@dataclass
class FakeActivation:
    """Every trial ends well, unless it is told another ending."""

    store: FakeStore
    problem: EdgekitError | None = None
    tried: list[tuple[str, str]] = field(default_factory=list)
    resumed: int = 0
    soaks: int = 0
    done: list[tuple[str, ...]] = field(default_factory=list)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def try_release(self, channel: str, ref: Ref, *, tell: Tell) -> None:
        self.tried.append((channel, ref.id))
        if self.problem is not None:
            raise self.problem
        before = self.store.kept.line(channel)
        self.store.write(self.store.kept.with_line(Line(channel=channel, active=ref, previous=before.active)))

    def resume(self) -> None:
        self.resumed += 1

    def soaked(self) -> None:
        self.soaks += 1

    def mend(self, damage: Damage, repair: Callable[[Installed], None]) -> bool:
        repair(damage.installed)
        return True

    def close(self) -> None:
        self.done.append(("close",))

    def rollback(self, channel: str, *, floors: Mapping[str, int] | None = None) -> Ref:
        self.done.append(("rollback", channel))
        if self.problem is not None:
            raise self.problem
        line = self.store.kept.line(channel)
        assert line.previous is not None
        self.store.write(self.store.kept.with_line(Line(channel=channel, active=line.previous, previous=line.active)))
        return line.previous

    def pin(self, channel: str, release_id: str | None) -> Ref:
        self.done.append(("pin", channel, release_id or ""))
        line = self.store.kept.line(channel)
        self.store.write(self.store.kept.with_line(Line(channel=channel, active=line.active, pin=line.active)))
        assert line.active is not None
        return line.active

    def unpin(self, channel: str) -> None:
        self.done.append(("unpin", channel))
        line = self.store.kept.line(channel)
        self.store.write(self.store.kept.with_line(Line(channel=channel, active=line.active)))


@dataclass
class Scene:
    """A link with all of its doubles."""

    trust: FakeTrust
    settings: LinkSettings = SETTINGS
    device: Device = DEVICE
    here: Here = HERE
    store: FakeStore = field(default_factory=FakeStore)
    delivery: FakeDelivery = field(default_factory=FakeDelivery)
    source: FakeSource = field(default_factory=FakeSource)
    connected: list[LinkSettings] = field(default_factory=list)
    told: list[Progress] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    unreachable: EdgekitError | None = None

    def __post_init__(self) -> None:
        self.activation = FakeActivation(self.store)
        parts = Parts(
            trust=self.trust,
            connect=self._connect,
            store=self.store,
            delivery=self.delivery,
            activation=self.activation,
        )
        self.link = Link(parts, self.settings, device=self.device, here=self.here, ticks=lambda: 0.0)

    def _connect(self, settings: LinkSettings, stop: Stop) -> Source:
        self.connected.append(settings)
        if self.unreachable is not None:
            raise self.unreachable
        return self.source

    def active(self, found: Release, channel: str = "stable") -> None:
        """That one serves already."""
        self.store.kept = self.store.kept.with_line(Line(channel=channel, active=ref(found)))

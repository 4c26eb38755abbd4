"""A device whose home a test may crash at any moment: real trust, store, content and activation; no engine, no network.

`World.look` holds its disk against the invariants of the sync link.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from device_agent.activation import Activation, Verdict
from device_agent.releases.records import Installed, Ref, State
from device_agent.releases.store import Store
from device_agent.sync.composing import compose
from device_agent.sync.identity import enrol
from device_agent.sync.link import Link
from device_agent.sync.records import LinkSettings, Outcome, Trusting
from edgekit.release.manifest import HealthFloor, Release
from tests.device_agent.bundles import TINY
from tests.repositories import NOW, Repository


@dataclass
class Stage:
    """Who serves: notes what the store says, and opens every file of it."""

    store: Store
    serving: bool = True
    served: tuple[Ref, ...] = ()

    def serve(self) -> None:
        self.served = tuple(one.ref for one in self.store.serving())

    def faults(self, ref: Ref) -> str | None:
        return None


@dataclass(frozen=True)
class Device:
    """Its rooms."""

    store: Store
    activation: Activation
    link: Link
    trust: Trusting
    stage: Stage


@dataclass(frozen=True)
class Seen:
    """The record, the versions that serve ("" for none), and the newest timestamp that was seen (0 for none)."""

    state: State
    served: frozenset[str]
    floor: int


@dataclass
class World:
    """A signed repository beside the device. `bad` releases fail their trial; `now` is what all clocks say."""

    folder: Path
    repository: Repository = field(default_factory=Repository)
    releases: dict[str, Release] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    now: float = NOW
    ticks: float = 0.0
    least_floor: int = 0

    @property
    def shared(self) -> Path:
        """The repository's files, beyond the device's disk."""
        return self.folder / "repository"

    def add(self, version: str, *, flip: int = 0, soak_s: float = 0.0) -> Release:
        """The tiny bundle as a release, with `flip` bytes of its weights turned."""
        bundle = self.folder / f"bundle-{version}"
        shutil.copytree(TINY, bundle)
        data = bundle / "model.onnx.data"
        raw = bytearray(data.read_bytes())
        for i in range(flip):
            raw[(i * 4099) % len(raw)] ^= 1
        data.write_bytes(raw)
        manifest = bundle / "bundle.json"
        facts = json.loads(manifest.read_bytes()) | {"version": version}
        for entry in facts["files"]:
            if entry["path"] == data.name:
                entry["sha256"] = hashlib.sha256(raw).hexdigest()
        manifest.write_text(json.dumps(facts))
        release = self.repository.add_folder(bundle, health=HealthFloor(soak_s=soak_s))
        self.releases[version] = release
        return release

    def offer(self, version: str, *, base: str | None = None) -> None:
        """Let the channel name it, and publish that."""
        if base is not None:
            self.repository.add_delta(self.releases[base], self.releases[version])
        self.repository.set_channel("stable", self.releases[version].id)
        self.repository.publish()
        self.repository.write(self.shared)

    def device(self, home: Path) -> Device:
        """The device's program, newly started."""

        def probe(installed: Installed, floor: HealthFloor) -> Verdict:
            assert floor == installed.release.health
            is_good = installed.release.version not in self.bad
            return Verdict(ok=is_good, reason="" if is_good else "it says nothing but nonsense")

        store = Store(home)
        stage = Stage(store)
        activation = Activation(store, probe=probe, switch=stage, clock=lambda: self.now, ticks=lambda: self.ticks)
        settings = LinkSettings(reserve_bytes=0, repositories=(str(self.shared),))
        rooms = compose(home, settings, store=store, activation=activation, clock=lambda: self.now)
        return Device(store, activation, rooms.link, rooms.trust, stage)

    def enrolled(self, home: Path) -> None:
        """A device that trusts the repository, and has nothing yet."""
        enrol(home, self.repository.provisioning(), device_id="device", labels={})

    def started(self, home: Path) -> Device:
        """As the agent starts: first what a crash left is put right, then the serving."""
        device = self.device(home)
        device.activation.resume()
        device.store.empty_trash()
        device.stage.serve()
        return device

    def update(self, home: Path, *, soaked: bool = True) -> tuple[Outcome, ...]:
        """One pass of the link, and the soak's end."""
        device = self.started(home)
        outcomes = device.link.update(lambda _: None, Event())
        if soaked:
            device.activation.soaked()
        return outcomes

    # --- what is on the device's disk -------------------------------------------------------------

    def look(self, home: Path) -> "Seen":
        """What is there, once all invariants but convergence were looked at."""
        device = self.device(home)
        device.stage.serve()
        for folder in (home / "sync" / "releases").glob("*"):
            self._whole(folder)
        assert (home / "notes.txt").read_bytes() == b"mine", "a file of the user has changed"
        assert {path.name for path in home.iterdir()} <= {"notes.txt", "sync"}
        versions = frozenset(self._version(ref) for ref in device.stage.served)
        view = device.trust.last()
        floor = 0 if view is None else view.timestamp_version
        return Seen(device.store.state(), versions or frozenset({""}), floor)

    def _version(self, ref: Ref) -> str:
        return next(version for version, release in self.releases.items() if release.id == ref.id)

    def _whole(self, folder: Path) -> None:
        """What has its place is what was signed."""
        release = next(one for one in self.releases.values() if folder.name.startswith(f"{one.id}."))
        assert (folder / ".release.json").read_bytes() == release.to_bytes()
        for file in release.files:
            raw = (folder / file.path).read_bytes()
            assert hashlib.sha256(raw).hexdigest() == file.sha256, f"{folder.name}/{file.path} is not what was signed"

"""A publisher, sticks, and devices without a network; only the trial of a release is not a real one here."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.activation.activation import Activation
from device_agent.activation.records import Unserved, Verdict
from device_agent.releases.records import Installed
from device_agent.releases.store import Store
from device_agent.sync.composing import compose
from device_agent.sync.identity import Identity, enrol
from device_agent.sync.passes import Passes
from device_agent.sync.records import LinkSettings, Outcome, View
from edgekit.release.manifest import HealthFloor, Release
from edgekit.release.provisioning import FORMAT, Provisioning
from export.publish import pipeline
from export.publish.bundles import Group, Selection, groups_since, select, shelf_of
from export.publish.copying import write_folder, write_tar
from export.publish.pipeline import Job
from tests.contents import Never
from tests.device_agent.bundles import TINY, copy_to, edit, seal
from tests.export.publish.publishers import NOW, Publisher, publisher
from tests.export.silent import SILENT

MB = 1 << 20
BALLAST = "ballast.bin"
BALLAST_BYTES = 3 * MB


def quiet(_done: int, _total: int) -> None:
    """No bar."""


def bundle(folder: Path, version: int) -> Path:
    """The tiny model with 3 MB beside it, of which each version has a byte of its own in every 100 kB."""
    folder.mkdir(parents=True)
    made = copy_to(folder, TINY)
    ballast = bytearray(random.Random(0).randbytes(BALLAST_BYTES))
    for at in range(0, BALLAST_BYTES, 100_000):
        ballast[at] = version
    (made / BALLAST).write_bytes(ballast)

    def change(manifest: dict[str, object]) -> None:
        manifest["version"] = f"{version}.0"
        files = manifest["files"]
        assert isinstance(files, list)
        files.append({"path": BALLAST, "size": 0, "sha256": "0" * 64})

    edit(made, change)
    seal(made)
    return made


@dataclass
class Works:
    """Where releases are made. Version N of the tiny model is `releases[N]`."""

    folder: Path
    publisher: Publisher
    releases: dict[int, Release] = field(default_factory=dict)

    @property
    def repo(self) -> Path:
        return self.publisher.repository.folder

    def publish(self, version: int, *, since: Sequence[int] = (), folder: Path | None = None) -> Release:
        """Offer a version to everybody, with differences from others; `folder` has it, if it is another one."""
        job = Job(
            folder=folder or bundle(self.folder / f"bundle-{version}", version),
            channel="stable",
            health=HealthFloor(soak_s=0.0),
            bases=tuple(self.releases[base].id for base in since),
        )
        outcome = pipeline.publish(
            job, self.publisher.repository, self.publisher.keyring, SILENT, now=self.publisher.now
        )
        self.releases[version] = outcome.release
        return outcome.release

    def stick(self, name: str, *since: int, groups: Sequence[Group] = ()) -> Path:
        """A bundle in a folder; without anything said, for any device."""
        stick = self.folder / name
        write_folder(self._selected(since, groups), self.repo, stick, quiet)
        return stick

    def tar(self, name: str, *since: int) -> Path:
        """The same in a tar file."""
        file = self.folder / name
        write_tar(self._selected(since, ()), self.repo, file, quiet)
        return file

    def _selected(self, since: Sequence[int], groups: Sequence[Group]) -> Selection:
        shelf = shelf_of(self.publisher.repository)
        wanted = (*groups_since([self.releases[version].id for version in since], shelf), *groups)
        return select(shelf, wanted, now=self.publisher.now)

    def device(self, name: str) -> "Device":
        """A device that was told of this repository's keys."""
        root = self.publisher.repository.root(1).decode()
        return Device(self.folder / name, Provisioning(format=FORMAT, root=root))


def works(folder: Path) -> Works:
    return Works(folder, publisher(folder))


class Trial:
    """Says that all is well but for those that it `fails`, with the reason."""

    def __init__(self) -> None:
        self.fails: dict[str, str] = {}

    def __call__(self, installed: Installed, floor: HealthFloor) -> Verdict:
        reason = self.fails.get(installed.ref.id)
        return Verdict(ok=reason is None, reason=reason or "")


class Device:
    """One device, and a clock that a test moves."""

    def __init__(self, home: Path, provisioning: Provisioning) -> None:
        self.home = home
        self.now = NOW
        self.trial = Trial()
        self.identity: Identity = enrol(home, provisioning, device_id=home.name, labels={})

    def passes(self, *repositories: Path | str, report: str | None = None) -> Passes:
        """As a process that has just begun."""
        store = Store(self.home)
        activation = Activation(store, probe=self.trial, switch=Unserved(), clock=lambda: self.now)
        settings = LinkSettings(repositories=tuple(map(str, repositories)), reserve_bytes=0, report=report)
        rooms = compose(self.home, settings, store=store, activation=activation, clock=lambda: self.now)
        return Passes(rooms, clock=lambda: self.now)

    def sync(self, *repositories: Path | str, report: str | None = None) -> Outcome:
        """`edgekit sync --once`."""
        [outcome] = self.passes(*repositories, report=report).update(lambda _: None, Never(), anytime=True)
        return outcome

    def view(self) -> View | None:
        """What it trusts."""
        return self.passes("nowhere").rooms.trust.last()

    @property
    def active(self) -> str | None:
        """What serves."""
        line = Store(self.home).state().line("stable")
        return None if line.active is None else line.active.id

    def ballast(self) -> bytes:
        """Of what serves."""
        [serving] = Store(self.home).serving()
        return (serving.folder / BALLAST).read_bytes()

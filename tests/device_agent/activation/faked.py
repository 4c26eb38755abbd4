"""A probe, a switch and a clock that do what a test says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from device_agent.activation import Activation, Verdict
from device_agent.releases.records import Installed, Ref
from device_agent.releases.store import Store
from device_agent.sync.records import Progress
from edgekit.errors import EdgekitError
from edgekit.release.manifest import HealthFloor

FINE = Verdict(ok=True)


class PowerCut(BaseException):
    """Nothing that Python code does about errors may happen after it; see `cut`."""


@dataclass
class FakeProbe:
    """Gives its `verdicts` one after the other, then says that all is well. What is an error is raised."""

    verdicts: list[Verdict | BaseException] = field(default_factory=list)
    tried: list[Ref] = field(default_factory=list)
    tries_left: list[int] = field(default_factory=list)
    store: Store | None = None

    def __call__(self, installed: Installed, floor: HealthFloor) -> Verdict:
        self.tried.append(installed.ref)
        if self.store is not None:
            again = Store(self.store.folder.parent)  # what is on the disk when it starts
            self.tries_left += [line.tries_left for line in again.state().lines if line.trial == installed.ref]
        verdict = self.verdicts.pop(0) if self.verdicts else FINE
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict


@dataclass
class FakeSwitch:
    """Serves what the store says, if it can: `unable` are releases that cannot be loaded, by id."""

    store: Store
    serving: bool = True
    unable: dict[str, EdgekitError] = field(default_factory=dict)
    faulty: dict[str, str] = field(default_factory=dict)
    served: list[tuple[str, ...]] = field(default_factory=list)

    def serve(self) -> None:
        names = tuple(one.ref.id for one in self.store.serving())
        for name in names:
            if name in self.unable:
                raise self.unable[name]
        self.served.append(names)

    def faults(self, ref: Ref) -> str | None:
        return self.faulty.get(ref.id)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Device:
    """A store with everything around it; `again` is the same device after its process has ended somehow."""

    store: Store
    probe: FakeProbe
    switch: FakeSwitch
    ticks: Clock
    activation: Activation

    def again(self, *, resume: bool = True) -> "Device":
        made = device(Store(self.store.folder.parent), ticks=self.ticks)
        if resume:
            made.activation.resume()
        return made

    def line(self, channel: str = "stable") -> Any:
        return self.store.state().line(channel)

    def serves(self) -> list[Ref]:
        return [one.ref for one in self.store.serving()]


def device(store: Store, *, serving: bool = True, ticks: Clock | None = None) -> Device:
    probe, switch, ticks = FakeProbe(store=store), FakeSwitch(store, serving=serving), ticks or Clock()
    activation = Activation(store, probe=probe, switch=switch, clock=lambda: 1_800_000_000.0, ticks=ticks)
    return Device(store, probe, switch, ticks, activation)


def told(into: list[str]) -> Any:
    """A `Tell` that keeps the phases."""

    def tell(progress: Progress) -> None:
        into.append(f"{progress.phase} {progress.release}")

    return tell


def silent(_: Progress) -> None:
    """A `Tell` for those who do not listen."""


def verdicts(*reasons: str, final: bool = True) -> Sequence[Verdict]:
    return [Verdict(ok=False, reason=reason, final=final) for reason in reasons]


def lines(found: Device) -> tuple[str | None, str | None]:
    """The active release and the one before it."""
    line = found.line()
    return line.active and line.active.id, line.previous and line.previous.id

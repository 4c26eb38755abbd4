"""What a device that is enrolled has, as those who drive it need it: protocols and one record, no code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_agent.releases.records import Installed, Ref, State
from device_agent.releases.scrub import Damage
from device_agent.sync.identity import Identity
from device_agent.sync.link import Connect, Link
from device_agent.sync.records import LinkSettings, Trusting, View
from edgekit.release.channel import Device


class Trust(Trusting, Protocol):
    """What is trusted, and how to begin anew."""

    def reset(self) -> None:
        """Forget what was trusted since the device was enrolled."""


class Store(Protocol):
    """What is on disk (device_agent/releases/store.py)."""

    folder: Path

    def seen(self) -> tuple[State, int]:
        """The record, and a number that grows with each change of it."""

    def state(self) -> State:
        """The record."""

    def installed(self) -> tuple[Installed, ...]:
        """Every release that is whole on disk."""

    def staging(self, ref: Ref) -> Path:
        """Where a release is put together."""


class Activation(Protocol):
    """What serves (device_agent/activation)."""

    @property
    def figures(self) -> Mapping[str, Mapping[str, float]]:
        """What the last trials measured, by release."""

    def resume(self) -> None:
        """Go on where a crash or a restart left off."""

    def soaked(self) -> None:
        """To be called every second or so by who serves."""

    def rollback(self, channel: str, *, floors: Mapping[str, int] | None = None) -> Ref:
        """The release before. Raises Refused."""

    def pin(self, channel: str, release_id: str | None) -> Ref:
        """Stay on a release. Raises Refused."""

    def unpin(self, channel: str) -> None:
        """Follow the channel again."""

    def mend(self, damage: Damage, repair: Callable[[Installed], None]) -> bool:
        """Have a damaged release repaired, or the one before it take over. Whether it is whole now."""

    def close(self) -> None:
        """The agent ends in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """All of it. `settings` are complete: what a provisioning file said is in them."""

    home: Path
    identity: Identity
    device: Device
    settings: LinkSettings
    trust: Trust
    connect: Connect
    store: Store
    activation: Activation
    link: Link


def floors_of(view: View | None) -> Mapping[str, int]:
    """The lowest sequences that may run, as far as anything is trusted."""
    return {} if view is None else view.floors

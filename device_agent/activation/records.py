"""What the room's files say to each other, and to who serves: records and protocols, no code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from device_agent.releases.records import Installed, Ref
from edgekit.release.manifest import HealthFloor


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a release has passed its health check, else why not.

    `figures` are what was measured, by name. A failure that may have been the machine's fault is not `final`: while the
    release has tries left, it is started again.
    """

    ok: bool
    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    final: bool = True


class Probe(Protocol):
    """Starts a release away from everything that serves, and looks at it."""

    def __call__(self, installed: Installed, floor: HealthFloor) -> Verdict:
        """What it showed. Raises Refused if it cannot be started now, which is no fault of its own."""


class Switch(Protocol):
    """Who serves."""

    @property
    def serving(self) -> bool:
        """Whether this process serves at all: a soak is watched by one that does."""

    def serve(self) -> None:
        """Take over what the store says is to serve: requests move, and none is dropped.

        Raises EdgekitError if that cannot be loaded; what served before does so still.
        """

    def faults(self, ref: Ref) -> str | None:
        """What is wrong with a release that serves, None if nothing is known to be."""


class Unserved:
    """The switch of a process that serves nothing, as `edgekit sync`: an agent takes over when it sees the record."""

    serving = False

    def serve(self) -> None:
        """Nobody asks here."""

    def faults(self, ref: Ref) -> str | None:
        """None are seen from here."""
        return None

"""The store's record and what it is made of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from edgekit.manifest import Sha256
from edgekit.release.manifest import Kind, Release
from edgekit.release.names import ChannelName, ReleaseId

TRIES = 2
"""How often a release may be started before it has shown that it works."""

MOST_REFUSALS = 100


class Ref(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release on this device: `sha256` is its manifest's, so that the same name signed anew is another release."""

    id: ReleaseId
    kind: Kind
    sequence: int
    sha256: Sha256

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.id}.{self.sha256[:12]}"


@dataclass(frozen=True, slots=True)
class Installed:
    """A release that is whole on disk: its folder, and its manifest as it was signed."""

    ref: Ref
    folder: Path
    release: Release


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one channel has brought.

    `active` serves; `previous` can be gone back to; `trial` is to show that it works and has `tries_left` starts. With
    `pin` the channel is ignored, and the pinned one stays. `soaking` is true once the trial serves, but may still fail.
    """

    channel: ChannelName
    active: Ref | None = None
    previous: Ref | None = None
    trial: Ref | None = None
    tries_left: Annotated[int, msgspec.Meta(ge=0, le=TRIES)] = 0
    soaking: bool = False
    pin: Ref | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release that failed here. It is not tried again while its channel names it (`at`: Unix seconds)."""

    release: Ref
    channel: ChannelName
    reason: str
    at: float


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole record."""

    lines: tuple[Line, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    def line(self, channel: str) -> Line:
        """A channel's line, an empty one if it has none."""
        return next((line for line in self.lines if line.channel == channel), Line(channel=channel))

    def with_line(self, line: Line) -> "State":
        """With that channel's line replaced."""
        others = tuple(other for other in self.lines if other.channel != line.channel)
        return msgspec.structs.replace(self, lines=tuple(sorted((*others, line), key=lambda line: line.channel)))

    def refused(self, sha256: str) -> Refusal | None:
        """Why a release is not to be tried again, None if it may be."""
        return next((refusal for refusal in self.refusals if refusal.release.sha256 == sha256), None)

    def kept(self) -> frozenset[Ref]:
        """Those that no collection may take."""
        return frozenset(
            ref for line in self.lines for ref in (line.active, line.previous, line.trial, line.pin) if ref is not None
        )


def not_pinned(line: Line) -> str:
    """Why there is nothing on a line that could be pinned, for people."""
    if line.trial is not None:
        return f"{line.trial.id} is still on trial: it can be pinned once it was watched for a while"
    return f"nothing is installed from {line.channel} that could be pinned"

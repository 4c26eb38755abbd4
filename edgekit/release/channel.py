"""The channel file: which release is for whom, from when. Who gets what is computed by each device, without a server.

A JSON target of the role `rollout`, at most 1 MiB. A device is in the first part of a rollout if

    sha256(salt + "|" + device id) mod 10,000  <  percent x 100

(big-endian, all 32 bytes), so that a wider stage with the same salt holds everybody who was in the narrower one. How
many devices there are, nobody needs to know. `ramp` says which percentage counts from which moment on; none at all
means everybody at once.

    format        1
    name          the channel
    version       counts up with each change, for people; TUF's versions are what protects
    release       what the channel offers
    previous      for those who are not in it yet and have nothing at all
    salt, ramp    who is in it when
    labels        `allow` and `deny`: values of a device's labels; allow must all match, deny must none
    pause         nobody begins anything new
    abort_to      everybody goes (back) to this one
    freshness     "strict": metadata that is out of date allows no new install. "warn": it does (for USB sticks)
    note          for people
"""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from edgekit.errors import CorruptRelease, UnsupportedRelease
from edgekit.release.names import ChannelName, ReleaseId

FORMAT = 1
MAX_CHANNEL_BYTES = 1 << 20
SLICES = 10_000

Label = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
UnixSeconds = Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]


class RampStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `not_before` (Unix seconds) on, `percent` of all devices may have the release."""

    not_before: UnixSeconds
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)]


class Labels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Values by label."""

    allow: dict[Label, tuple[Label, ...]] = {}
    deny: dict[Label, tuple[Label, ...]] = {}


class Channel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The file as a record; see the module's text for each field."""

    format: int
    name: ChannelName
    version: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    release: ReleaseId
    salt: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    previous: ReleaseId | None = None
    ramp: Annotated[tuple[RampStep, ...], msgspec.Meta(max_length=1000)] = ()
    labels: Labels = Labels()
    pause: bool = False
    abort_to: ReleaseId | None = None
    freshness: Literal["strict", "warn"] = "strict"
    note: Annotated[str, msgspec.Meta(max_length=2000)] = ""

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"


class _FormatOnly(msgspec.Struct):
    format: int


def parse(raw: bytes) -> Channel:
    """Read a channel file that was signed. Raises CorruptRelease or UnsupportedRelease."""
    try:
        found = msgspec.json.decode(raw, type=_FormatOnly).format
        if found > FORMAT:
            raise UnsupportedRelease(f"its channel file has format {found}, and this version reads up to {FORMAT}")
        channel = msgspec.json.decode(raw, type=Channel)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptRelease(f"the channel file cannot be read: {error}"[:1000]) from error
    steps = channel.ramp
    if channel.format < 1 or any(a.not_before > b.not_before for a, b in itertools.pairwise(steps)):
        raise CorruptRelease("the channel file is wrong: its format, or the order of its ramp")
    return channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Who asks: the id by which it is in one part of a rollout or another, and its labels."""

    id: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a channel means for one device: the release that it should have (None: as it is), and why."""

    release: ReleaseId | None
    reason: Literal["offered", "paused", "aborted", "not yet", "not for this device", "first"]


def slice_of(salt: str, device_id: str) -> int:
    """Which of 10,000 equal parts a device is in."""
    return int.from_bytes(hashlib.sha256(f"{salt}|{device_id}".encode()).digest()) % SLICES


def percent_at(ramp: tuple[RampStep, ...], now: float) -> float:
    """Which share of devices may have the release at a moment."""
    if not ramp:
        return 100.0
    return max((step.percent for step in ramp if step.not_before <= now), default=0.0)


def matches(labels: Labels, device: Device) -> bool:
    """Whether a channel is for a device with such labels."""
    if any(device.labels.get(label) in values for label, values in labels.deny.items()):
        return False
    return all(device.labels.get(label) in values for label, values in labels.allow.items())


def decide(channel: Channel, device: Device, *, now: float, has_one: bool) -> Decision:
    """What a device should have. `has_one` is whether it has any release of this channel already. Pure."""
    if not matches(channel.labels, device):
        return Decision(None, "not for this device")
    if channel.abort_to is not None:
        return Decision(channel.abort_to, "aborted")
    if channel.pause:
        return Decision(None, "paused")
    # Rounded, since 0.07 * 100 is more than 7 in binary, and would let one more slice in.
    if slice_of(channel.salt, device.id) < round(percent_at(channel.ramp, now) * (SLICES // 100), 6):
        return Decision(channel.release, "offered")
    if channel.previous is not None and not has_one:
        return Decision(channel.previous, "first")
    return Decision(None, "not yet")

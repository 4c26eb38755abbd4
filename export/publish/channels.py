"""Channels as they are changed: from what a person says to the next version of the file. Pure."""

import datetime
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from edgekit.errors import CorruptRelease, PublishError, UsageError
from edgekit.release.channel import FORMAT, MAX_CHANNEL_BYTES, Channel, Labels, RampStep, parse, percent_at
from edgekit.release.names import ChannelName, ReleaseId, release_target

_SALT_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be different about a channel; None leaves it as it is.

    A `release` that is another one is for everybody at once unless `ramp` says otherwise, and ends a pause and an
    abort. The salt stays, so that those who had the last release first have the next one first too: a fix reaches
    whom it is for. `new_salt` lets others go first. `forget_previous`: who has nothing waits, if not yet in the first.
    """

    release: ReleaseId | None = None
    ramp: tuple[RampStep, ...] | None = None
    pause: bool | None = None
    abort_to: ReleaseId | None = None
    allow: Mapping[str, tuple[str, ...]] | None = None
    deny: Mapping[str, tuple[str, ...]] | None = None
    freshness: Literal["strict", "warn"] | None = None
    note: str | None = None
    new_salt: bool = False
    forget_previous: bool = False


def changed(name: ChannelName, old: Channel | None, wish: Wish, *, now: float, salt: str) -> Channel:
    """The next version of a channel; `salt` is for a new one. Raises PublishError if there is nothing to offer yet."""
    if old is None:
        if wish.release is None:
            raise PublishError(f"there is no channel {name} yet: say --release for its first one")
        old = Channel(format=FORMAT, name=name, version=1, release=wish.release, salt=salt)
        version, previous = 1, None
    else:
        version, previous = old.version + 1, _previous(old, wish, now)
    is_other = wish.release is not None and wish.release != old.release
    return Channel(
        format=FORMAT,
        name=name,
        version=version,
        release=wish.release or old.release,
        previous=previous,
        salt=salt if wish.new_salt else old.salt,
        ramp=wish.ramp if wish.ramp is not None else () if is_other else old.ramp,
        labels=Labels(
            allow=old.labels.allow if wish.allow is None else dict(wish.allow),
            deny=old.labels.deny if wish.deny is None else dict(wish.deny),
        ),
        pause=_paused(old, wish, is_other=is_other),
        abort_to=wish.abort_to or (None if is_other or wish.pause is False else old.abort_to),
        freshness=wish.freshness or old.freshness,
        note=old.note if wish.note is None else wish.note,
    )


def _previous(old: Channel, wish: Wish, now: float) -> ReleaseId | None:
    """For devices that have nothing yet: the last release that everybody was to have."""
    if wish.forget_previous:
        return None
    if wish.release is None or wish.release == old.release:
        return old.previous
    if old.abort_to is not None:
        return old.abort_to if old.abort_to != wish.release else None
    kept = old.release if percent_at(old.ramp, now) >= 100 and not old.pause else old.previous
    return kept if kept != wish.release else None


def _paused(old: Channel, wish: Wish, *, is_other: bool) -> bool:
    if wish.pause is not None:
        return wish.pause
    return old.pause and not is_other


def new_salt() -> str:
    """Another order in which devices come."""
    return secrets.token_urlsafe(_SALT_BYTES)


def steps(percent: float | None, ramp: str | None) -> tuple[RampStep, ...] | None:
    """`--percent 5`, or `--ramp 2026-12-01:5,2026-12-03T06:00:50` (UTC). Raises UsageError."""
    if ramp is None:
        if percent is None:
            return None
        return () if percent >= 100 else (RampStep(0, percent),)
    if percent is not None:
        raise UsageError("--percent and --ramp say the same thing: give one of them.")
    found = [_step(part) for part in ramp.split(",")]
    return tuple(sorted(found, key=lambda step: step.not_before))


def _step(part: str) -> RampStep:
    moment, _, percent = part.strip().rpartition(":")
    try:
        at = datetime.datetime.fromisoformat(moment)
        share = float(percent.removesuffix("%"))
    except ValueError as error:
        raise UsageError(f"{part!r} is not a step such as 2026-12-01:5 (from that day on, 5 %).") from error
    if not 0 <= share <= 100:
        raise UsageError(f"{part!r}: a percentage is between 0 and 100.")
    return RampStep(int((at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()), share)


def check_name(name: str) -> None:
    """Raises UsageError for one that no channel can have."""
    try:
        msgspec.convert(name, ChannelName)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{name!r} cannot be a channel's name: small letters and digits, then also . _ and -, at most 64 in all."
        ) from error


def _check_readable(channel: Channel) -> None:
    """Raises PublishError for one that devices could not read, and neither could who changes it next."""
    raw = channel.to_bytes()
    try:
        parse(raw)
    except CorruptRelease as error:
        raise PublishError(f"channel {channel.name} cannot be so: {error.problem}") from error
    if len(raw) > MAX_CHANNEL_BYTES:
        raise PublishError(f"channel {channel.name} is too long: {len(raw):,} bytes of {MAX_CHANNEL_BYTES:,}")


def check(
    channel: Channel, listed: Mapping[str, Mapping[str, Any]], floors: Mapping[str, int], *, old: Channel | None = None
) -> None:
    """Hold a channel against the list of releases (TUF's custom field by target path), the floors, and what it was.

    Raises PublishError: devices could not read it or would refuse what it names, or an adapter would take the place of
    their model.
    """
    _check_readable(channel)
    kinds = {entry["kind"] for release in _named(channel, old) if (entry := listed.get(release_target(release)))}
    if len(kinds) > 1:
        raise PublishError(f"channel {channel.name} has {' and '.join(sorted(kinds))}: give each kind its own channel")
    for field_name in ("release", "previous", "abort_to"):
        release = getattr(channel, field_name)
        if release is None:
            continue
        entry = listed.get(release_target(release))
        if entry is None:
            raise PublishError(f"channel {channel.name} names {release} ({field_name}), which is not listed")
        if entry["sequence"] < floors.get(entry["model"], 0):
            raise PublishError(
                f"channel {channel.name} names {release} ({field_name}), which is below the floor of {entry['model']}"
            )


def _named(*versions: Channel | None) -> set[ReleaseId]:
    found = {name for one in versions if one is not None for name in (one.release, one.previous, one.abort_to)}
    return {name for name in found if name is not None}

"""How a rollout goes on: counts from reports, and the two thresholds that decide. Pure.

    reports -> where each device stands -> counts of the newest stage -> widen, wait, or stop

hawkBit's rule of two thresholds, and AWS's of a least number of executions: a stage is widened when at least so many of
its devices run the release, and stopped when the share of those on which it failed is over a limit. That share is held
against the least number as long as fewer have reported, so that the first failures of a stage count in full: what no
later success could put right is not waited for. A stage is the part of the devices that the last widening let in, as
the channel's ramp remembers; devices that are silent count for nothing.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from edgekit.release.channel import SLICES, Channel, RampStep, decide, percent_at, slice_of
from edgekit.release.names import ReleaseId
from export.publish.devices import Member

DAY_S = 86_400.0
EVERYBODY = 100.0

Standing = Literal["installed", "trying", "failed", "pinned", "waiting", "silent", "later", "other"]
"""Where a device stands with what its channel has for it.

    installed   it serves, and is past its trial       pinned    its operator holds it at another one
    trying      in its trial, or soaking               waiting   it reports, and has not got there yet
    failed      it failed there, and was taken back    silent    no report, or none for a long time
    later       its part of the rollout has not come   other     the channel is not for a device with these labels
"""

OFFERED: tuple[Standing, ...] = ("installed", "trying", "failed", "pinned", "waiting", "silent")


@dataclass(frozen=True, slots=True)
class Place:
    """One device: what it should have (None: as it is), where it stands, what serves there, and why it failed."""

    member: Member
    release: ReleaseId | None
    standing: Standing
    active: ReleaseId | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A channel and the devices that are known. `stage` are the counts of the newest stage alone."""

    channel: Channel
    percent: float
    counts: Mapping[Standing, int]
    stage: Mapping[Standing, int]
    versions: Mapping[str, int]
    reasons: Mapping[str, int]

    @property
    def offered(self) -> int:
        """Devices that should have what the channel offers now."""
        return sum(self.counts.get(standing, 0) for standing in OFFERED)


def place(channel: Channel, member: Member, *, now: float, silent_s: float) -> Place:
    """Where a device stands. A pause takes nobody's place away: who got the release before it still counts."""
    report = member.report
    line = None if report is None else report.line(channel.name)
    active = None if line is None else line.active
    going_on = msgspec.structs.replace(channel, pause=False)
    decision = decide(going_on, member.as_device, now=now, has_one=active is not None)
    if decision.reason not in ("offered", "aborted"):
        return Place(member, decision.release, "other" if decision.reason == "not for this device" else "later", active)
    wanted = decision.release
    if report is None or line is None or member.seen_at is None or now - member.seen_at > silent_s:
        return Place(member, wanted, "silent", active)
    if line.trial == wanted:
        return Place(member, wanted, "trying", active)
    if active == wanted:
        return Place(member, wanted, "installed", active)
    for refusal in report.refusals:
        if (refusal.release, refusal.channel) == (wanted, channel.name):
            return Place(member, wanted, "failed", active, refusal.reason)
    return Place(member, wanted, "pinned" if line.pin is not None else "waiting", active)


def status(channel: Channel, members: Iterable[Member], *, now: float, silent_s: float = 7 * DAY_S) -> Status:
    """Count the devices of a channel."""
    places = [place(channel, member, now=now, silent_s=silent_s) for member in members]
    begin = stage_begin(channel, now)
    newest = [one for one in places if begin <= slice_of(channel.salt, one.member.device)]
    return Status(
        channel=channel,
        percent=percent_at(channel.ramp, now),
        counts=Counter(one.standing for one in places),
        stage=Counter(one.standing for one in newest if one.standing in OFFERED),
        versions=Counter(one.active or "none" for one in places if one.standing != "other"),
        reasons=Counter(one.reason for one in places if one.standing == "failed"),
    )


def stage_begin(channel: Channel, now: float) -> int:
    """The first slice of the newest stage: where the one before it ended."""
    past = tuple(step for step in channel.ramp if step.not_before <= now)
    reached = list(itertools.accumulate((step.percent for step in past), max))
    before = [percent for percent in reached if percent < max(reached)]
    return round(max(before, default=0.0) * (SLICES // 100))


# --- going on ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """At least `min_ok` devices of a stage run the release; at most `max_fail_percent` failed with it."""

    min_ok: int
    max_fail_percent: float


@dataclass(frozen=True, slots=True)
class Move:
    """What comes next, and why. "widen" to `percent`; "done": no wider step is left, and enough run it."""

    kind: Literal["widen", "wait", "stop", "done"]
    reason: str
    percent: float = 0.0


def next_move(found: Status, limits: Limits, steps: Sequence[float]) -> Move:
    """Whether a rollout may go on. `steps` are percentages to go through, the next one of which is taken."""
    if problem := _reason_to_stop(found, limits):
        return Move("stop", problem)
    ok = found.stage.get("installed", 0)
    if ok < limits.min_ok:
        return Move("wait", _missing(found, limits, ok))
    wider = min((step for step in steps if step > found.percent), default=None)
    if wider is not None:
        return Move("widen", f"{ok} devices of the newest stage run it", wider)
    return Move("done", f"{found.percent:g} % of the devices are offered it, and {ok} of the newest stage run it")


def _reason_to_stop(found: Status, limits: Limits) -> str | None:
    if found.channel.abort_to is not None:
        return f"it was aborted: everybody goes to {found.channel.abort_to}"
    for name, counts in (("all devices", found.counts), ("the newest stage", found.stage)):
        if problem := _too_many_failed(counts, limits):
            return f"of {name} {problem}"
    if found.channel.pause:
        return f"it is paused; `edgekit channel set {found.channel.name} --resume` ends that"
    return None


def _too_many_failed(counts: Mapping[Standing, int], limits: Limits) -> str | None:
    failed = counts.get("failed", 0)
    tried = failed + counts.get("installed", 0)
    if not failed or failed * 100 <= limits.max_fail_percent * max(tried, limits.min_ok):
        return None
    return f"{failed} of {tried} that tried it failed, and {limits.max_fail_percent:g} % are allowed"


def _missing(found: Status, limits: Limits, ok: int) -> str:
    known = sum(found.stage.values())
    reason = f"{ok} of at least {limits.min_ok} devices of the newest stage run it"
    if known < limits.min_ok:
        return f"{reason}; only {known} of the devices that are enrolled here are in it: lower --min-ok for it"
    return f"{reason}; {found.stage.get('waiting', 0)} have not got there, {found.stage.get('silent', 0)} are silent"


def widened(channel: Channel, percent: float, *, now: float) -> tuple[RampStep, ...]:
    """The ramp with a wider stage from now on.

    What is past stays, and says where the stage began; what is to come and no wider goes.
    """
    past = tuple(step for step in channel.ramp if step.not_before <= now)
    to_come = tuple(step for step in channel.ramp if step.not_before > now and step.percent > percent)
    return (*past, RampStep(int(now), percent), *to_come)

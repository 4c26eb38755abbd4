"""What a channel means for this device: one rule after the other, without IO.

pinned? -> what does the channel decide -> is it there already -> is it listed, above the floor, not refused before
-> is what is trusted fresh enough -> (with its manifest in hand) has this device what it needs
"""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from device_agent.releases.records import Line, Ref, State
from device_agent.shelf.names import version_order
from device_agent.sync.records import Ending, Listed, Outcome, View
from edgekit.errors import FailedTrial, Refused, Untrusted
from edgekit.release.channel import Channel, Device, decide
from edgekit.release.manifest import Release, Requires

MACHINES: Mapping[str, str] = {"amd64": "x86_64", "arm64": "aarch64"}
"""What Windows and macOS call the processors that Linux has other names for."""

WAITING: Mapping[str, str] = {
    "paused": "the channel is paused",
    "not yet": "this device's turn in the rollout has not come",
    "not for this device": "the channel is not for a device with these labels",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a channel, and why, as a sentence for people; `ending` None: `listed` is to be installed."""

    ending: Ending | None
    listed: Listed | None = None
    reason: str = ""
    exit_code: int = 0

    def outcome(self, channel: str) -> Outcome:
        """What became of a channel where nothing is to be installed."""
        ending = self.ending or "current"
        release = None if self.listed is None else self.listed.id
        return Outcome(channel=channel, ending=ending, release=release, reason=self.reason, exit_code=self.exit_code)


def judge(channel: Channel, view: View, state: State, device: Device) -> Verdict:
    """What a device that is in this state does about a channel, if it trusts this view. Pure."""
    line = state.line(channel.name)
    if line.pin is not None:
        return Verdict("held", view.releases.get(line.pin.id), f"pinned to {line.pin.id}")
    decision = decide(channel, device, now=view.now, has_one=line.active is not None)
    if decision.release is None:
        return Verdict("held", reason=WAITING[decision.reason])
    listed = view.releases.get(decision.release)
    if listed is None:
        said = f"the channel {channel.name} names {decision.release}, which the role `releases` does not list"
        return Verdict("refused", reason=said, exit_code=Untrusted.exit_code)
    for verdict in _reasons_not_to(listed, line, view, state):
        return verdict
    if not view.fresh and channel.freshness == "strict":
        said = f"{listed.id} is offered, but what this device knows of the repository is out of date"
        return Verdict("refused", listed, said, Untrusted.exit_code)
    return Verdict(None, listed, _REASONS[decision.reason])


_REASONS: Mapping[str, str] = {
    "offered": "",
    "aborted": "the rollout was aborted: everybody goes to this one",
    "first": "the first one for a device that has none",
}


def _reasons_not_to(listed: Listed, line: Line, view: View, state: State) -> Iterator[Verdict]:
    digest = listed.manifest_sha256
    if _is(line.active, digest):
        yield Verdict("current", listed)
    if _is(line.trial, digest) and line.soaking:
        yield Verdict("current", listed, "it serves, and is watched for a while")
    floor = view.floors.get(listed.model, 0)
    if listed.sequence < floor:
        said = f"{listed.id} has the number {listed.sequence}, and its owner allows none below {floor}"
        yield Verdict("refused", listed, said, Refused.exit_code)
    if refusal := state.refused(digest):
        yield Verdict("refused", listed, f"{listed.id} failed here before: {refusal.reason}", FailedTrial.exit_code)


def _is(ref: Ref | None, digest: str) -> bool:
    return ref is not None and ref.sha256 == digest


def warnings(line: Line, view: View, models: Mapping[str, str]) -> Iterator[str]:
    """What an operator must hear of what runs, though nothing is done about it.

    `models` are the names of the models of what is installed, by the manifest's SHA-256.
    """
    for ref in dict.fromkeys(ref for ref in (line.pin, line.active) if ref is not None):
        listed = view.releases.get(ref.id)
        if ref.sequence < view.floors.get(models.get(ref.sha256, ""), 0):
            pinned = "pinned, and " if ref == line.pin else ""
            yield f"{ref.id} is {pinned}below the lowest number that its owner still allows"
        if listed is None or listed.manifest_sha256 != ref.sha256:
            yield f"{ref.id} is not listed any more: its owner has withdrawn it"


def forgiven(state: State, channel: str, digest: str | None) -> State:
    """Without a channel's refusals of releases that it names no longer: one that it names again is tried again."""
    kept = tuple(one for one in state.refusals if one.channel != channel or one.release.sha256 == digest)
    return state if len(kept) == len(state.refusals) else State(lines=state.lines, refusals=kept)


# --- with the manifest in hand ----------------------------------------------------------------


def agree(listed: Listed, release: Release) -> None:
    """Raises Untrusted if a manifest says something else than what the role `releases` lists it as."""
    said = (release.id, release.kind, release.name, release.version, release.sequence, release.file_bytes)
    if said != (listed.id, listed.kind, listed.model, listed.version, listed.sequence, listed.file_bytes):
        raise Untrusted(f"the manifest of {listed.id} is not that of what is listed under this name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What this device is, as far as a release may ask for it."""

    edgekit: str
    onnxruntime: str
    machine: str
    memory_bytes: int


def lacking(requires: Requires, here: Here) -> str | None:
    """What a release needs and this device does not have; None if nothing."""
    for name, wanted, found in (
        ("edgekit", requires.edgekit, here.edgekit),
        ("onnxruntime", requires.onnxruntime, here.onnxruntime),
    ):
        if wanted is not None and version_order(found) < version_order(wanted):
            return f"it needs {name} {wanted} or newer, and {found} is installed"
    if requires.machines and _machine(here.machine) not in map(_machine, requires.machines):
        return f"it is for {', '.join(requires.machines)}, and this is {here.machine}"
    if requires.memory_bytes > here.memory_bytes:
        needed, found_gb = requires.memory_bytes / 1e9, here.memory_bytes / 1e9
        return f"it needs {needed:.1f} GB of memory, and this machine has {found_gb:.1f} GB"
    return None


def _machine(name: str) -> str:
    folded = name.lower()
    return MACHINES.get(folded, folded)


def this_machine(*, edgekit: str, onnxruntime: str, memory_bytes: int) -> Here:
    """What is asked of the system; versions come from who has imported them."""
    return Here(edgekit=edgekit, onnxruntime=onnxruntime, machine=platform.machine(), memory_bytes=memory_bytes)

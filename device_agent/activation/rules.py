"""What a line of releases does at each event. Pure: a record goes in, a record comes out.

    begun -> started (a try is spent) -> passed: it serves, soaking -> soaked: it is active, its forerunner previous
                 |                           |
                 +------ failed: refused, and what is active stays active

In every state: one that is pinned is the active one, and nothing is on trial beside it; one that was refused is not on
trial; and `active` only ever becomes what has passed before.
"""

import msgspec

from device_agent.releases.records import MOST_REFUSALS, TRIES, Line, Ref, Refusal, State
from edgekit.errors import FailedTrial, Refused

BY_HAND = "somebody went back from it on this device"


def begun(state: State, channel: str, ref: Ref) -> State:
    """A channel brings a release. One that is on trial already goes on with the tries that it has left.

    Raises FailedTrial for one that failed here, Refused for a line that is pinned.
    """
    line = state.line(channel)
    if line.pin is not None:
        raise Refused(f"{channel} is pinned to {line.pin.id}")
    if refusal := state.refused(ref.sha256):
        raise FailedTrial(f"{ref.id}: {refusal.reason}")
    if ref == line.trial:
        return state
    if ref == line.active:
        return state.with_line(_without_trial(line))
    return state.with_line(msgspec.structs.replace(line, trial=ref, tries_left=TRIES, soaking=False))


def started(state: State, channel: str, ref: Ref) -> State:
    """It is about to be started: to be written down before. Raises Refused if it has no try left, or is off trial."""
    line = state.line(channel)
    if line.trial != ref or line.tries_left == 0:
        raise Refused(f"{ref.id} is not to be started again")
    return state.with_line(msgspec.structs.replace(line, tries_left=line.tries_left - 1))


def postponed(state: State, channel: str, ref: Ref) -> State:
    """It could not be started after all, for no fault of its own: the try is not counted."""
    line = state.line(channel)
    if line.trial != ref:
        return state
    return state.with_line(msgspec.structs.replace(line, tries_left=min(TRIES, line.tries_left + 1)))


def passed(state: State, channel: str, ref: Ref, *, serving: bool) -> State:
    """It has shown what it had to, and is to serve. Where it does so at once (`serving`), that is a start too.

    Raises Refused if it is off trial.
    """
    line = state.line(channel)
    if line.trial != ref:
        raise Refused(f"{ref.id} is not on trial any more")
    return state.with_line(msgspec.structs.replace(line, soaking=True, tries_left=TRIES - serving))


def rested(state: State) -> State:
    """The agent ends in order: nobody's fault."""
    for line in state.lines:
        if line.soaking and line.trial is not None:
            state = postponed(state, line.channel, line.trial)
    return state


def failed(state: State, channel: str, ref: Ref, *, reason: str, at: float) -> State:
    """It is off trial, and not tried again while its channel names it. What is active stays so."""
    line = state.line(channel)
    if line.trial != ref:
        return state
    return _refuse(state.with_line(_without_trial(line)), Refusal(release=ref, channel=channel, reason=reason, at=at))


def soaked(state: State, channel: str, ref: Ref) -> State:
    """It has served for long enough: it is the active one."""
    line = state.line(channel)
    if line.trial != ref or not line.soaking:
        return state
    return state.with_line(Line(channel=channel, active=ref, previous=line.active))


def gone_back(state: State, channel: str, *, at: float) -> State:
    """Somebody wants the one before. Raises Refused if there is none, or the line is pinned."""
    line = state.line(channel)
    if line.pin is not None:
        raise Refused(f"{channel} is pinned to {line.pin.id}; let it follow its channel first")
    if line.trial is not None and line.active is not None:
        return failed(state, channel, line.trial, reason=BY_HAND, at=at)
    if line.active is None or line.previous is None:
        raise Refused(f"{channel} has no release to go back to")
    left = Refusal(release=line.active, channel=channel, reason=BY_HAND, at=at)
    swapped = Line(channel=channel, active=line.previous, previous=line.active)
    return _refuse(_forgive(state.with_line(swapped), line.previous), left)


def pinned(state: State, channel: str, ref: Ref) -> State:
    """The line stays on a release that has passed here before, whatever its channel says. Raises Refused."""
    line = state.line(channel)
    if line.soaking and line.trial is not None:
        raise Refused(f"{line.trial.id} is on trial: it can be pinned once it has passed, or gone back from")
    if ref not in (line.active, line.previous):
        raise Refused(f"{ref.id} is neither the active release of {channel} nor the one before it")
    previous = line.active if ref == line.previous else line.previous
    return _forgive(state.with_line(Line(channel=channel, active=ref, previous=previous, pin=ref)), ref)


def unpinned(state: State, channel: str) -> State:
    """The line follows its channel again."""
    return state.with_line(msgspec.structs.replace(state.line(channel), pin=None))


def restored(state: State, before: State, channel: str) -> State:
    """A channel's line, and what is refused, as they were before an event that came to nothing."""
    return msgspec.structs.replace(state.with_line(before.line(channel)), refusals=before.refusals)


def lost(state: State, ref: Ref, *, gone: bool) -> State:
    """A release is damaged beyond repair, or `gone` from the disk: the one before it takes over where there is one.

    A damaged one without one before it stays, to be repaired later; one that is gone does not, so that it is fetched.
    """
    for line in state.lines:
        after = _lost(line, ref, gone=gone)
        state = state.with_line(after)
        if after.active is not None and after.active != line.active:
            state = _forgive(state, after.active)
    return state


def _lost(line: Line, ref: Ref, *, gone: bool) -> Line:
    if line.trial == ref:
        line = _without_trial(line)
    if line.previous == ref:
        line = msgspec.structs.replace(line, previous=None)
    if line.active == ref and (gone or line.previous is not None):
        pin = None if line.pin is None else line.previous
        if line.trial == line.previous:  # the channel has gone back to it just now
            line = _without_trial(line)
        line = msgspec.structs.replace(line, active=line.previous, previous=None, pin=pin)
    return line


def _without_trial(line: Line) -> Line:
    return msgspec.structs.replace(line, trial=None, tries_left=0, soaking=False)


def _refuse(state: State, refusal: Refusal) -> State:
    others = tuple(other for other in state.refusals if other.release != refusal.release)
    return msgspec.structs.replace(state, refusals=(*others, refusal)[-MOST_REFUSALS:])


def _forgive(state: State, ref: Ref) -> State:
    return msgspec.structs.replace(state, refusals=tuple(one for one in state.refusals if one.release != ref))

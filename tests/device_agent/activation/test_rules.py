"""Every event in every state that can be reached: what must always be true is."""

import functools
from collections.abc import Callable, Iterator

import msgspec
import pytest

from device_agent.activation import rules
from device_agent.releases.records import MOST_REFUSALS, TRIES, Line, Ref, Refusal, State
from edgekit.errors import FailedTrial, Refused

CHANNEL, OTHER = "stable", "beta"
A, B, C = (Ref(id=f"tiny-{n}", kind="model", sequence=n, sha256=str(n) * 64) for n in (1, 2, 3))
REFS = (A, B, C)

Event = Callable[[State], State]


def failed(state: State, channel: str, ref: Ref) -> State:
    return rules.failed(state, channel, ref, reason="wrong tokens", at=5.0)


EVENTS: dict[str, Event] = {
    **{f"begun {ref.id}": functools.partial(lambda ref, s: rules.begun(s, CHANNEL, ref), ref) for ref in REFS},
    **{f"started {ref.id}": functools.partial(lambda ref, s: rules.started(s, CHANNEL, ref), ref) for ref in REFS},
    **{f"postponed {ref.id}": functools.partial(lambda ref, s: rules.postponed(s, CHANNEL, ref), ref) for ref in REFS},
    **{
        f"passed {ref.id}": functools.partial(lambda ref, s: rules.passed(s, CHANNEL, ref, serving=True), ref)
        for ref in REFS
    },
    **{f"failed {ref.id}": functools.partial(lambda ref, s: failed(s, CHANNEL, ref), ref) for ref in REFS},
    **{f"soaked {ref.id}": functools.partial(lambda ref, s: rules.soaked(s, CHANNEL, ref), ref) for ref in REFS},
    **{f"pinned {ref.id}": functools.partial(lambda ref, s: rules.pinned(s, CHANNEL, ref), ref) for ref in REFS},
    **{f"lost {ref.id}": functools.partial(lambda ref, s: rules.lost(s, ref, gone=False), ref) for ref in REFS},
    **{f"gone {ref.id}": functools.partial(lambda ref, s: rules.lost(s, ref, gone=True), ref) for ref in REFS},
    "passed tiny-1 beside": lambda state: rules.passed(state, CHANNEL, A, serving=False),
    "gone back": lambda state: rules.gone_back(state, CHANNEL, at=6.0),
    "unpinned": lambda state: rules.unpinned(state, CHANNEL),
    "rested": rules.rested,
    "forgiven": lambda state: msgspec.structs.replace(state, refusals=()),  # the channel has named another one
}


def known(state: State) -> State:
    """The same state for everybody who has the same line and has refused the same, in whatever order."""
    refusals = {one.release.id: one for one in state.refusals}
    same = tuple(
        msgspec.structs.replace(one, at=0.0, reason="") for one in sorted(refusals.values(), key=lambda r: r.release.id)
    )
    return msgspec.structs.replace(state, refusals=same)


@functools.cache
def steps() -> tuple[tuple[State, str, State | None], ...]:
    """Every step from every state that can be reached from nothing; None: the event was refused."""
    found: list[tuple[State, str, State | None]] = []
    begin = State()
    seen, left = {msgspec.json.encode(begin)}, [begin]
    while left:
        state = left.pop()
        for name, event in EVENTS.items():
            try:
                after = known(event(state))
            except Refused:
                found.append((state, name, None))
                continue
            found.append((state, name, after))
            if (key := msgspec.json.encode(after)) not in seen:
                seen.add(key)
                left.append(after)
    return tuple(found)


def allowed() -> Iterator[tuple[Line, str, Line, State]]:
    for before, name, after in steps():
        if after is not None:
            yield before.line(CHANNEL), name, after.line(CHANNEL), after


def test_there_are_many_states_and_every_event_happens_in_some() -> None:
    assert len({msgspec.json.encode(before) for before, _, _ in steps()}) > 300
    assert {name for _, name, after in steps() if after is not None} == set(EVENTS)


def test_nothing_is_on_trial_beside_a_pinned_release_which_is_the_active_one() -> None:
    for _, name, line, _ in allowed():
        assert line.pin is None or (line.pin == line.active and line.trial is None), name


def test_tries_and_soaking_belong_to_a_trial() -> None:
    for _, name, line, _ in allowed():
        assert line.trial is not None or (line.tries_left == 0 and not line.soaking), name
        assert line.trial is None or line.trial != line.active, name
        assert line.active is None or line.active != line.previous, name


def test_what_was_refused_is_neither_on_trial_nor_active() -> None:
    for _, name, line, state in allowed():
        for ref in (line.trial, line.active):
            assert ref is None or state.refused(ref.sha256) is None, (name, line)


def test_active_becomes_only_what_has_served_on_trial_or_was_active_before() -> None:
    for before, name, after, _ in allowed():
        if after.active not in (before.active, None):
            assert after.active == before.previous or (name.startswith("soaked") and before.soaking), name
        if after.active is None and before.active is not None:
            assert name.startswith("gone tiny")


def test_a_release_that_fails_never_takes_what_is_active_with_it() -> None:
    for before, name, after, _ in allowed():
        if name.startswith(("failed", "begun", "started", "passed", "postponed", "rested")):
            assert (before.active, before.previous) == (after.active, after.previous), name


def test_previous_is_kept_until_the_next_one_is_active() -> None:
    for before, name, after, _ in allowed():
        if name.startswith("soaked") and before.soaking and after.trial is None:
            assert after.previous == before.active


def test_each_start_costs_a_try_and_none_is_left_after_two() -> None:
    for before, name, after, _ in allowed():
        if name.startswith("started"):
            assert after.tries_left == before.tries_left - 1
    state = rules.begun(State(), CHANNEL, A)
    for _ in range(TRIES):
        state = rules.started(state, CHANNEL, A)
    with pytest.raises(Refused):
        rules.started(state, CHANNEL, A)


def test_beginning_again_gives_no_tries_back() -> None:
    state = rules.started(rules.begun(State(), CHANNEL, A), CHANNEL, A)
    assert rules.begun(state, CHANNEL, A) == state


def test_other_channels_are_left_alone() -> None:
    line = Line(channel=OTHER, active=A, previous=B, trial=C, tries_left=1, soaking=True)
    for name, event in EVENTS.items():
        if not name.startswith(("lost", "gone tiny", "rested")):
            try:
                after = event(State(lines=(line,)))
            except Refused:
                continue
            assert after.line(OTHER) == line, name


# --- one by one -------------------------------------------------------------------------------


def active(*refs: Ref) -> State:
    """A line whose releases were active one after the other."""
    state = State()
    for ref in refs:
        state = rules.begun(state, CHANNEL, ref)
        state = rules.passed(rules.started(state, CHANNEL, ref), CHANNEL, ref, serving=True)
        state = rules.soaked(state, CHANNEL, ref)
    return state


def test_the_way_forward() -> None:
    assert active(A, B).line(CHANNEL) == Line(channel=CHANNEL, active=B, previous=A)


def test_the_second_start_that_serves_is_the_last_one() -> None:
    state = rules.passed(rules.started(rules.begun(active(A), CHANNEL, B), CHANNEL, B), CHANNEL, B, serving=True)
    assert state.line(CHANNEL).tries_left == TRIES - 1
    beside = rules.passed(rules.started(rules.begun(active(A), CHANNEL, B), CHANNEL, B), CHANNEL, B, serving=False)
    assert beside.line(CHANNEL).tries_left == TRIES, "no agent has begun to serve it"


def test_an_agent_that_ends_in_order_gives_the_try_back() -> None:
    state = rules.passed(rules.begun(active(A), CHANNEL, B), CHANNEL, B, serving=True)
    again = rules.started(state, CHANNEL, B)
    assert rules.rested(again) == state
    assert rules.rested(rules.begun(State(), CHANNEL, A)) == rules.begun(State(), CHANNEL, A)


def test_a_channel_that_names_the_active_one_ends_the_trial_without_blame() -> None:
    state = rules.passed(rules.begun(active(A), CHANNEL, B), CHANNEL, B, serving=True)
    assert rules.begun(state, CHANNEL, A) == active(A)


def test_going_back_refuses_what_was_left_and_going_back_again_takes_that_back() -> None:
    back = rules.gone_back(active(A, B), CHANNEL, at=7.0)
    assert back.line(CHANNEL) == Line(channel=CHANNEL, active=A, previous=B)
    with pytest.raises(FailedTrial, match="somebody went back"):
        rules.begun(back, CHANNEL, B)
    forth = rules.gone_back(back, CHANNEL, at=8.0)
    assert forth.line(CHANNEL).active == B
    assert forth.refused(B.sha256) is None


def test_going_back_from_a_trial_leaves_the_active_one() -> None:
    state = rules.gone_back(
        rules.passed(rules.begun(active(A, B), CHANNEL, C), CHANNEL, C, serving=True), CHANNEL, at=1.0
    )
    assert state.line(CHANNEL) == active(A, B).line(CHANNEL)
    assert state.refused(C.sha256) is not None


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (State(), "no release to go back to"),
        (active(A), "no release to go back to"),
        (rules.pinned(active(A, B), CHANNEL, B), "is pinned to tiny-2"),
    ],
)
def test_there_must_be_one_to_go_back_to(state: State, problem: str) -> None:
    with pytest.raises(Refused, match=problem):
        rules.gone_back(state, CHANNEL, at=1.0)


def test_a_pinned_line_takes_nothing_and_follows_again_when_it_is_let_go() -> None:
    state = rules.pinned(active(A, B), CHANNEL, A)
    assert state.line(CHANNEL) == Line(channel=CHANNEL, active=A, previous=B, pin=A)
    with pytest.raises(Refused, match="pinned to tiny-1"):
        rules.begun(state, CHANNEL, C)
    assert rules.begun(rules.unpinned(state, CHANNEL), CHANNEL, C).line(CHANNEL).trial == C


@pytest.mark.parametrize("ref", [C, B])
def test_only_what_has_passed_here_can_be_pinned(ref: Ref) -> None:
    state = rules.begun(active(A), CHANNEL, B)
    soaking = rules.passed(rules.started(state, CHANNEL, B), CHANNEL, B, serving=True)
    for each in (state, soaking):
        with pytest.raises(Refused):
            rules.pinned(each, CHANNEL, ref)


def test_what_is_damaged_gives_way_to_the_one_before_and_stays_if_there_is_none() -> None:
    assert rules.lost(active(A, B), B, gone=False).line(CHANNEL) == Line(channel=CHANNEL, active=A)
    assert rules.lost(active(A), A, gone=False) == active(A)
    assert rules.lost(active(A), A, gone=True).line(CHANNEL).active is None


def test_a_pin_moves_with_what_takes_over() -> None:
    state = rules.lost(rules.pinned(active(A, B), CHANNEL, B), B, gone=True)
    assert state.line(CHANNEL) == Line(channel=CHANNEL, active=A, pin=A)


def test_only_the_newest_refusals_are_kept() -> None:
    state, ref = State(), A
    for number in range(MOST_REFUSALS + 5):
        ref = Ref(id=f"tiny-{number}", kind="model", sequence=number, sha256=f"{number:064x}")
        state = failed(rules.begun(state, CHANNEL, ref), CHANNEL, ref)
    assert len(state.refusals) == MOST_REFUSALS
    assert state.refusals[-1] == Refusal(release=ref, channel=CHANNEL, reason="wrong tokens", at=5.0)

"""The link: from what is trusted to what serves, with doubles of all rooms."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from device_agent.releases.records import Line, Refusal, State
from device_agent.sync.delivery import Receipt
from device_agent.sync.records import LinkSettings, Offer, Outcome, Window
from edgekit.errors import (
    CorruptRelease,
    EdgekitError,
    FailedTrial,
    NoSpace,
    SyncError,
    TrustLost,
    Unreachable,
    Untrusted,
)
from edgekit.release.channel import Labels, RampStep
from edgekit.release.manifest import Release, Requires
from edgekit.release.names import release_target
from tests.device_agent.sync.fakes import COST, NOW, FakeTrust, Scene, channel, digest, ref, release, trusting

V1, V2, V3 = (release(version=f"{n}.0", sequence=n) for n in (1, 2, 3))
LORA = release("tiny-lora", kind="adapter", sequence=4)


def scene(*found: Release, **changed: object) -> Scene:
    """A device whose channel `stable` offers the last of these releases."""
    trust = trusting(*found)
    trust.say(channel(found[-1].id))
    return Scene(trust, **changed)  # type: ignore[arg-type]


def updated(on: Scene) -> Outcome:
    (outcome,) = on.link.update(on.told.append, on.stop)
    return outcome


# --- the way through --------------------------------------------------------------------------


def test_what_the_channel_offers_is_fetched_tried_and_served() -> None:
    on = scene(V1, V2)
    on.active(V1)
    outcome = updated(on)
    assert (outcome.ending, outcome.release, outcome.exit_code) == ("installed", "tiny-2.0", 0)
    assert (outcome.moved_bytes, outcome.reused_bytes) == (100, 900)
    assert on.delivery.fetched == on.delivery.put == ["tiny-2.0"]
    assert on.activation.tried == [("stable", "tiny-2.0")]
    assert on.store.kept.line("stable").active == ref(V2)
    assert on.store.collected == 2
    assert on.source.closed
    assert [each.phase for each in on.told] == ["checking", "fetching", "idle"]


def test_what_nobody_needs_any_more_goes_before_anything_is_fetched() -> None:
    on = scene(V1)
    on.delivery.unsound = CorruptRelease("the disk says something else")
    events: list[str] = []

    def collect(_: object = ()) -> int:
        events.append("collect")
        return 0

    def fetch(*_: object, **__: object) -> Receipt:
        events.append("fetch")
        return Receipt()

    on.store.collect, on.delivery.fetch = collect, fetch  # type: ignore[method-assign,assignment]
    updated(on)
    assert events == ["collect", "fetch", "collect"]


def test_a_release_that_failed_here_is_not_wanted_any_more() -> None:
    on = scene(V1)
    refused = Refusal(release=ref(V1), channel="stable", reason="wrong tokens", at=NOW)

    def fails(*_: object, **__: object) -> None:
        on.store.kept = State(refusals=(refused,))
        raise FailedTrial("wrong tokens")

    on.activation.try_release = fails  # type: ignore[method-assign]
    updated(on)
    assert on.store.wanted == ()


def test_a_second_update_finds_nothing_to_do() -> None:
    on = scene(V1)
    updated(on)
    outcome = updated(on)
    assert (outcome.ending, outcome.release, outcome.exit_code) == ("current", "tiny-1.0", 0)
    assert on.delivery.fetched == ["tiny-1.0"]


def test_what_is_on_disk_already_is_not_fetched_again() -> None:
    on = scene(V2, V1)  # an operator's way back: the channel names the older one
    on.active(V2)
    on.delivery.here.add("tiny-1.0")
    assert updated(on).ending == "installed"
    assert on.delivery.fetched == []
    assert on.activation.tried == [("stable", "tiny-1.0")]


def test_what_a_crash_left_off_is_resumed_first() -> None:
    on = scene(V1)
    updated(on)
    assert on.activation.resumed == 1


# --- what is not to be installed --------------------------------------------------------------


def pause(trust: FakeTrust) -> None:
    trust.say(channel(V2.id, pause=True))


def not_yet(trust: FakeTrust) -> None:
    trust.say(channel(V2.id, ramp=(RampStep(not_before=int(NOW) + 1, percent=100),)))


def another_site(trust: FakeTrust) -> None:
    trust.say(channel(V2.id, labels=Labels(allow={"site": ("oslo",)})))


def unlisted(trust: FakeTrust) -> None:
    trust.view = replace(trust.view, releases={V1.id: trust.view.releases[V1.id]})


def floor(trust: FakeTrust) -> None:
    trust.view = replace(trust.view, floors={"tiny": 3})


def stale(trust: FakeTrust) -> None:
    trust.view = replace(trust.view, fresh=False)


def no_channel(trust: FakeTrust) -> None:
    trust.view = replace(trust.view, channels=frozenset())


def another_channels_file(trust: FakeTrust) -> None:
    trust.targets["channels/stable.json"] = channel(V2.id, "beta").to_bytes()


def another_manifest(trust: FakeTrust) -> None:
    trust.targets[release_target(V2.id)] = msgspec.structs.replace(V2, sequence=9).to_bytes()


def newer_format(trust: FakeTrust) -> None:
    trust.targets[release_target(V2.id)] = msgspec.structs.replace(V2, format=2).to_bytes()


def nobody_answers(trust: FakeTrust) -> None:
    trust.problem = Unreachable("no route to host")


def memory_lost(trust: FakeTrust) -> None:
    trust.problem = TrustLost("both floors are damaged")


def forged(trust: FakeTrust) -> None:
    trust.problem, trust.known = Untrusted("nobody signed this"), False


@pytest.mark.parametrize(
    ("happens", "ending", "exit_code", "says"),
    [
        (pause, "held", 0, "paused"),
        (not_yet, "held", 0, "turn in the rollout"),
        (another_site, "held", 0, "labels"),
        (unlisted, "refused", 61, "does not list"),
        (floor, "refused", 67, "allows none below 3"),
        (stale, "refused", 61, "out of date"),
        (no_channel, "failed", 64, "channel stable"),
        (another_channels_file, "refused", 61, "says that it is beta"),
        (another_manifest, "refused", 61, "not that of what is listed"),
        (newer_format, "refused", 66, "newer edgekit"),
        (nobody_answers, "failed", 63, "no route to host"),
        (memory_lost, "refused", 62, "both floors"),
        (forged, "refused", 61, "nobody signed this"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_nothing_is_installed_and_the_reason_is_told(
    happens: Callable[[FakeTrust], None], ending: str, exit_code: int, says: str
) -> None:
    on = scene(V1, V2)
    on.active(V1)
    happens(on.trust)
    outcome = updated(on)
    assert (outcome.ending, outcome.exit_code) == (ending, exit_code)
    assert says in outcome.reason
    assert on.delivery.fetched == []
    assert on.activation.tried == []
    assert on.store.kept.line("stable") == Line(channel="stable", active=ref(V1))
    assert on.told[-1].phase == "idle"


@pytest.mark.parametrize(
    ("problem", "ending", "exit_code"),
    [
        (Unreachable("cut off"), "failed", 63),
        (NoSpace("/data", 5, 3), "failed", 69),
        (CorruptRelease("a chunk is another"), "refused", 65),
        (OSError(5, "Input/output error"), "failed", 54),
    ],
    ids=repr,
)
def test_what_does_not_come_whole_is_never_tried(problem: EdgekitError | OSError, ending: str, exit_code: int) -> None:
    on = scene(V1)
    on.delivery.problem = problem
    outcome = updated(on)
    assert (outcome.ending, outcome.exit_code, outcome.release) == (ending, exit_code, "tiny-1.0")
    assert on.delivery.put == []
    assert on.activation.tried == []
    assert on.store.wanted == (V1.id,), "what came is kept for the next run"


def test_stopped_in_the_middle_is_no_failure_and_what_came_is_kept() -> None:
    on = scene(V1)
    on.delivery.problem = SyncError("it was told to stop")
    on.stop.set()
    outcome = updated(on)
    assert (outcome.ending, outcome.exit_code, outcome.release) == ("held", 0, V1.id)
    assert "told to stop" in outcome.reason
    assert on.store.wanted == (V1.id,)


def test_stopped_before_the_repository_has_answered_is_no_failure() -> None:
    on = scene(V1)
    on.trust.problem, on.trust.known = Unreachable("the update was stopped"), False
    on.stop.set()
    outcome = updated(on)
    assert (outcome.ending, outcome.exit_code, outcome.release) == ("held", 0, None)
    assert "told to stop" in outcome.reason
    on.trust.problem = Untrusted("nobody signed this")
    assert updated(on).ending == "refused", "that is worth knowing all the same"


def test_what_is_found_unsound_when_it_is_sealed_is_never_tried() -> None:
    on = scene(V1)
    on.delivery.unsound = CorruptRelease("the disk says something else")
    assert updated(on).exit_code == 65
    assert on.activation.tried == []


def test_a_failed_trial_is_an_outcome() -> None:
    on = scene(V1, V2)
    on.active(V1)
    on.activation.problem = FailedTrial("wrong tokens")
    outcome = updated(on)
    assert (outcome.ending, outcome.exit_code) == ("refused", 68)
    assert "wrong tokens" in outcome.reason


@pytest.mark.parametrize(
    ("requires", "says"),
    [
        (Requires(edgekit="1.1"), "edgekit 1.1 or newer, and 1.0"),
        (Requires(onnxruntime="1.40"), "onnxruntime 1.40"),
        (Requires(machines=("aarch64",)), "for aarch64, and this is x86_64"),
        (Requires(memory_bytes=16 << 30), "17.2 GB of memory"),
    ],
    ids=repr,
)
def test_a_release_that_needs_more_than_this_device_has_is_refused_before_the_first_byte(
    requires: Requires, says: str
) -> None:
    on = scene(release(version="2.0", requires=requires))
    outcome = updated(on)
    assert (outcome.ending, outcome.exit_code) == ("refused", 67)
    assert says in outcome.reason
    assert on.delivery.fetched == []


def test_what_this_device_has_is_enough() -> None:
    needs = Requires(edgekit="0.9", onnxruntime="1.31", machines=("arm64", "AMD64"), memory_bytes=8 << 30)
    assert updated(scene(release(requires=needs))).ending == "installed"


# --- refusals, pins, aborts -------------------------------------------------------------------


def failed_before(on: Scene, found: Release) -> None:
    refusal = Refusal(release=ref(found), channel="stable", reason="it hung", at=NOW)
    on.store.kept = State(lines=on.store.kept.lines, refusals=(refusal,))


def test_a_release_that_failed_here_is_not_tried_again_while_the_channel_names_it() -> None:
    on = scene(V1, V2)
    on.active(V1)
    failed_before(on, V2)
    for _ in range(2):
        outcome = updated(on)
        assert (outcome.ending, outcome.exit_code) == ("refused", 68)
        assert "it hung" in outcome.reason
    assert on.activation.tried == []


def test_it_is_tried_again_once_the_channel_has_named_another() -> None:
    on = scene(V1, V2, V3)
    on.active(V1)
    failed_before(on, V2)
    assert updated(on).release == V3.id
    on.trust.say(channel(V2.id))
    assert updated(on).ending == "installed"


def test_the_same_name_signed_anew_is_another_release() -> None:
    on = scene(V1, V2)
    failed_before(on, V2)
    anew = replace(on.trust.view.releases[V2.id], manifest_sha256=digest("another"))
    on.trust.view = replace(on.trust.view, releases={V2.id: anew})
    assert updated(on).ending == "installed"


def test_a_pinned_line_follows_no_channel() -> None:
    on = scene(V1, V2)
    on.store.kept = State(lines=(Line(channel="stable", active=ref(V1), pin=ref(V1)),))
    outcome = updated(on)
    assert (outcome.ending, outcome.exit_code) == ("held", 0)
    assert "pinned to tiny-1.0" in outcome.reason


def test_an_abort_leads_back_even_while_the_channel_is_paused() -> None:
    on = scene(V1, V2)
    on.active(V2)
    on.delivery.here.add(V1.id)
    on.trust.say(channel(V2.id, pause=True, abort_to=V1.id))
    outcome = updated(on)
    assert (outcome.ending, outcome.release) == ("installed", V1.id)
    assert "aborted" in outcome.reason


def test_stale_metadata_still_says_that_what_runs_is_the_newest() -> None:
    on = scene(V1)
    on.active(V1)
    stale(on.trust)
    assert updated(on).ending == "current"


def test_stale_metadata_is_enough_for_a_channel_that_says_so() -> None:
    on = scene(V1)
    stale(on.trust)
    on.trust.say(channel(V1.id, freshness="warn"))
    assert updated(on).ending == "installed"


def test_a_release_that_soaks_is_not_tried_again() -> None:
    on = scene(V1, V2)
    on.store.kept = State(lines=(Line(channel="stable", active=ref(V1), trial=ref(V2), soaking=True, tries_left=1),))
    outcome = updated(on)
    assert (outcome.ending, outcome.release) == ("current", V2.id)
    assert on.activation.tried == []


# --- meanwhile --------------------------------------------------------------------------------


def test_f07_paused_while_it_was_fetched_is_not_activated() -> None:
    on = scene(V1, V2)
    on.active(V1)
    on.trust.later = pause
    outcome = updated(on)
    assert (outcome.ending, outcome.moved_bytes) == ("held", 100)
    assert on.delivery.put == []
    assert on.activation.tried == []
    assert on.store.kept.line("stable").active == ref(V1)


def test_f07_another_release_meanwhile_is_taken_by_the_next_update() -> None:
    on = scene(V1, V2, V3)
    on.trust.say(channel(V2.id))
    on.trust.later = lambda trust: trust.say(channel(V3.id))
    assert updated(on).ending == "held"
    assert on.activation.tried == []
    assert updated(on).release == V3.id


@pytest.mark.parametrize("problem", [Unreachable("the stick was pulled"), Untrusted("an older timestamp")], ids=repr)
def test_what_the_channel_said_last_stands_where_it_cannot_be_asked_again(problem: EdgekitError) -> None:
    on = scene(V1)

    def vanish(trust: FakeTrust) -> None:
        trust.problem = problem

    on.trust.later = vanish
    assert updated(on).ending == "installed"


# --- a repository that is older than what is trusted ------------------------------------------


def test_g03_packs_of_an_older_copy_serve_what_was_trusted_before() -> None:
    on = scene(V1, V2)
    on.active(V1)
    on.trust.problem = Untrusted("its timestamp is older")
    outcome = updated(on)
    assert (outcome.ending, outcome.release) == ("installed", V2.id)


def test_g03_an_older_copy_that_is_of_no_use_is_refused() -> None:
    on = scene(V1)
    on.active(V1)
    on.trust.problem = Untrusted("its timestamp is older")
    outcome = updated(on)
    assert (outcome.ending, outcome.exit_code) == ("refused", 61)
    assert "older" in outcome.reason
    assert outcome.release is None, "what is refused is the repository"


# --- several channels -------------------------------------------------------------------------

BOTH = LinkSettings(repositories=("fake",), channels=("adapters", "stable"))


def test_one_channel_does_not_hold_up_the_others() -> None:
    on = scene(V1, settings=BOTH)
    first, second = on.link.update(on.told.append, on.stop)
    assert (first.channel, first.ending, first.exit_code) == ("adapters", "failed", 64)
    assert (second.channel, second.ending) == ("stable", "installed")


def test_models_come_before_the_adapters_that_stand_beside_them() -> None:
    on = scene(LORA, V1, settings=BOTH)
    on.trust.say(channel(LORA.id, "adapters"))
    outcomes = on.link.update(on.told.append, on.stop)
    assert [each.channel for each in outcomes] == ["adapters", "stable"]
    assert on.activation.tried == [("stable", V1.id), ("adapters", LORA.id)]


def test_every_channel_hears_of_a_repository_that_cannot_be_reached() -> None:
    on = scene(V1, settings=BOTH)
    on.unreachable = Unreachable("no such folder")
    outcomes = on.link.update(on.told.append, on.stop)
    assert [(each.channel, each.exit_code) for each in outcomes] == [("adapters", 63), ("stable", 63)]


# --- looking ----------------------------------------------------------------------------------


def test_a_look_tells_what_an_update_would_take_and_changes_nothing() -> None:
    on = scene(V1, V2)
    on.active(V1)
    before = on.store.kept
    assert on.link.look() == (Offer(channel="stable", release=V2.id, reason="offered", cost=COST),)
    assert on.store.kept == before
    assert on.delivery.fetched == []
    assert on.source.closed


def test_a_look_tells_why_there_is_nothing() -> None:
    on = scene(V1)
    pause(on.trust)
    (offer,) = on.link.look()
    assert (offer.release, offer.cost) == (None, None)
    assert "paused" in offer.reason


def test_a_look_at_a_release_that_is_here_costs_nothing() -> None:
    on = scene(V1)
    on.delivery.here.add(V1.id)
    assert on.link.look() == (Offer(channel="stable", release=V1.id, reason="offered"),)


def test_a_look_raises_what_makes_all_channels_unknown() -> None:
    on = scene(V1)
    on.trust.problem = Untrusted("forged")
    with pytest.raises(Untrusted):
        on.link.look()


def test_windows_hold_for_updates_and_not_for_looks_or_wishes() -> None:
    windows = (Window(begin_minute=0, end_minute=1),)
    on = scene(V1, settings=LinkSettings(repositories=("fake",), windows=windows))
    on.link.look()
    on.link.update(on.told.append, on.stop, anytime=True)
    on.link.update(on.told.append, on.stop)
    assert [each.windows for each in on.connected] == [(), (), windows]

"""Leases under concurrency, what makes room for what, and what a reload changes."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.http.services import ModelName
from device_agent.shelf import Entry, Fault, Found, Shelf, ShelfSettings, Tally
from device_agent.shelf.remembered import Remembered
from edgekit.errors import (
    BundleError,
    CorruptBundle,
    InvalidRequest,
    Overloaded,
    ShuttingDown,
    StorageFailed,
    UnknownModel,
)
from tests.device_agent.shelf.shelves import MODEL_BYTES, STATE, WAIT_S, Clock, Loader, beside, entry, found

Make = Callable[..., Shelf]


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf_of(loader: Loader, clock: Clock) -> Iterator[Make]:
    """Makes shelves of entries; each is closed after the test."""
    made: list[Shelf] = []

    def make(
        *entries: Entry,
        settings: ShelfSettings | None = None,
        active: str | None = None,
        remembered: Remembered | None = None,
        everything: Found | None = None,
    ) -> Shelf:
        shelf = Shelf(
            everything or found(*entries),
            loader,
            settings or ShelfSettings(max_loaded_bytes=100 * MODEL_BYTES),
            active=active,
            remembered=remembered,
            strategies=("direct", "step-by-step"),
            clock=clock,
            available=lambda: 100 * MODEL_BYTES,
        )
        shelf.start()
        made.append(shelf)
        return shelf

    yield make
    for shelf in made:
        for _ in loader.models:
            loader.gate.put(None)
        shelf.close()


# --- leases ---------------------------------------------------------------------------------------


def test_a_model_is_loaded_when_somebody_asks_and_not_before(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"), entry("b"))
    assert loader.loads == []
    assert [card.loaded for card in shelf.cards()] == [False, False]
    lease = shelf.lease("a")
    assert lease.model is loader.model("a")
    assert loader.loads == ["a"]
    assert {card.id: card.loaded for card in shelf.cards()} == {"a": True, "b": False}
    assert lease.card.state == STATE


def test_many_who_ask_at_once_share_one_load(shelf_of: Make, loader: Loader) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a"))
    asking = [beside(lambda: shelf.lease("a")) for _ in range(20)]
    loader.begun.get(timeout=WAIT_S)
    loader.gate.put(None)
    models = {id(future.result(WAIT_S).model) for future in asking}
    assert len(models) == 1
    assert loader.loads == ["a"]


def test_one_model_is_loaded_at_a_time(shelf_of: Make, loader: Loader) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a"), entry("b"))
    first = beside(lambda: shelf.lease("a"))
    assert loader.begun.get(timeout=WAIT_S).id == "a"
    second = beside(lambda: shelf.lease("b"))
    while not shelf._table.places["b"].waiting:
        time.sleep(0)
    assert loader.begun.empty()
    loader.gate.put(None)
    first.result(WAIT_S)
    assert loader.begun.get(timeout=WAIT_S).id == "b"
    loader.gate.put(None)
    second.result(WAIT_S)


def test_a_loaded_model_is_leased_while_another_is_being_loaded(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"), entry("b"))
    shelf.lease("a")
    loader.gated = True
    slow = beside(lambda: shelf.lease("b"))
    loader.begun.get(timeout=WAIT_S)
    assert shelf.lease("a").model is loader.model("a")
    assert not slow.done()
    loader.gate.put(None)
    slow.result(WAIT_S)


def test_who_waits_too_long_is_told_to_come_back_and_the_load_goes_on(shelf_of: Make, loader: Loader) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a"), settings=ShelfSettings(loading_wait_s=0.0))
    with pytest.raises(Overloaded) as refused:
        shelf.lease("a")
    assert refused.value.retry_after_s >= 1
    loader.begun.get(timeout=WAIT_S)
    loader.gate.put(None)
    while not shelf.card("a").loaded:
        time.sleep(0)
    assert shelf.lease("a").model is loader.model("a")
    assert loader.loads == ["a"]


def test_a_lease_released_twice_counts_once(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"))
    kept, left = shelf.lease("a"), shelf.lease("a")
    left.release()
    left.release()
    shelf.unload("a")
    assert not loader.model("a").closed.is_set()
    kept.release()
    assert loader.model("a").closed.wait(WAIT_S)


def test_a_thousand_leases_on_many_threads_leave_nothing_held(shelf_of: Make) -> None:
    shelf = shelf_of(
        entry("a"), entry("b"), settings=ShelfSettings(max_loaded_bytes=MODEL_BYTES, loading_wait_s=WAIT_S)
    )

    def ask(name: str) -> int:
        served = 0
        while served < 100:
            try:
                lease = shelf.lease(name)
            except Overloaded:  # the other one is in use
                continue
            assert not lease._opened.model.closed.is_set()  # type: ignore[union-attr]
            lease.release()
            served += 1
        return served

    asking = [beside(lambda name=name: ask(name)) for name in "ab" * 5]  # type: ignore[misc]
    assert sum(future.result(WAIT_S) for future in asking) == 1_000
    assert [place.held for place in shelf._table.places.values()] == [False, False]


def test_an_encoder_makes_vectors_and_answers_nobody(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"), entry("e", embeds=True))
    with pytest.raises(InvalidRequest, match="embeddings"):
        _ = shelf.lease("e").model
    assert shelf.lease("e").encoder is loader.model("e")
    with pytest.raises(InvalidRequest, match="no vectors"):
        _ = shelf.lease("a").encoder
    assert shelf.card("e").state is None


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_load_that_fails_is_told_to_all_who_wait_and_tried_again_only_after_a_pause(
    shelf_of: Make, loader: Loader, clock: Clock
) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a"), settings=ShelfSettings(retry_s=10))
    asking = [beside(lambda: shelf.lease("a")) for _ in range(3)]
    loader.begun.get(timeout=WAIT_S)
    while shelf._table.places["a"].waiting < 3:
        time.sleep(0)
    loader.gate.put(CorruptBundle("a", "it is torn"))
    assert [str(future.exception(WAIT_S)) for future in asking] == ["The bundle a is damaged: it is torn"] * 3
    assert shelf.standing().failures == {"a": "The bundle a is damaged: it is torn"}
    clock.now += 9.9
    with pytest.raises(CorruptBundle, match="torn"):
        shelf.lease("a")
    assert loader.loads == ["a"]
    clock.now += 0.2
    loader.gate.put(None)
    shelf.lease("a")
    assert loader.loads == ["a", "a"]
    assert shelf.standing().failures == {}


def test_a_bug_while_loading_is_an_error_of_that_bundle(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"), entry("b"))
    loader.errors["a"] = RuntimeError("a secret")
    with pytest.raises(BundleError, match="RuntimeError") as failed:
        shelf.lease("a")
    assert "secret" not in str(failed.value)
    assert shelf.lease("b").card.loaded


def test_a_closed_shelf_leases_nothing_and_has_closed_its_models(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"))
    shelf.lease("a")
    shelf.close()
    assert loader.model("a").closed.is_set()
    with pytest.raises(ShuttingDown):
        shelf.lease("a")


def test_who_waits_for_a_load_hears_that_the_shelf_closes(shelf_of: Make, loader: Loader) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a"), entry("b"))
    beside(lambda: shelf.lease("a"))
    loader.begun.get(timeout=WAIT_S)
    waiting = beside(lambda: shelf.lease("b"))
    while not shelf._table.places["b"].waiting:
        time.sleep(0)
    closing = beside(shelf.close)
    assert isinstance(waiting.exception(WAIT_S), ShuttingDown)
    loader.gate.put(None)
    closing.result(WAIT_S)
    assert loader.model("a").closed.is_set()


# --- memory and idleness --------------------------------------------------------------------------


def test_the_longest_unused_makes_room(shelf_of: Make, loader: Loader, clock: Clock) -> None:
    shelf = shelf_of(entry("a"), entry("b"), entry("c"), settings=ShelfSettings(max_loaded_bytes=2 * MODEL_BYTES))
    for name in ("a", "b", "a"):
        clock.now += 1
        shelf.lease(name).release()
    shelf.lease("c").release()
    assert {card.id: card.loaded for card in shelf.cards()} == {"a": True, "b": False, "c": True}
    assert loader.model("b").closed.is_set()


def test_a_model_in_use_makes_no_room(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"), entry("b"), settings=ShelfSettings(max_loaded_bytes=MODEL_BYTES))
    lease = shelf.lease("a")
    with pytest.raises(Overloaded) as refused:
        shelf.lease("b")
    assert refused.value.retry_after_s >= 1
    assert not loader.model("a").closed.is_set()
    lease.release()
    assert shelf.lease("b").card.loaded  # at once: nothing failed
    assert loader.model("a").closed.is_set()


def test_a_model_larger_than_the_budget_is_loaded_alone(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"), entry("b"), settings=ShelfSettings(max_loaded_bytes=1))
    shelf.lease("a").release()
    shelf.lease("b").release()
    assert loader.model("a").closed.is_set()
    assert not loader.model("b").closed.is_set()


def test_an_idle_model_is_closed_and_comes_back(shelf_of: Make, loader: Loader, clock: Clock) -> None:
    shelf = shelf_of(entry("a"), entry("b"), settings=ShelfSettings(max_loaded_bytes=100_000, idle_unload_s=60))
    held = shelf.lease("b")
    shelf.lease("a").release()
    clock.now += 59
    shelf.tidy()
    assert shelf.lease("a").card.loaded  # and it was used again
    shelf.lease("a").release()
    first = loader.model("a")
    assert not first.closed.is_set()
    shelf._table.places["a"].leases = 0
    clock.now += 61
    shelf.tidy()
    assert first.closed.wait(WAIT_S)
    assert not loader.model("b").closed.is_set()
    held.release()
    assert shelf.lease("a").model is not first


def test_what_engines_did_is_counted_over_their_lives(shelf_of: Make) -> None:
    shelf = shelf_of(entry("a"))
    assert shelf.tallies() == {}
    once = Tally(read_tokens=5, cached_tokens=4, written_tokens=3, drafted=2, accepted=1)
    shelf.lease("a").release()
    assert shelf.tallies() == {"a": once}
    shelf.unload("a")
    assert shelf.tallies() == {"a": once}
    shelf.lease("a").release()
    assert shelf.tallies() == {"a": once.plus(STATE)}


def test_unload_is_done_when_it_returns_unless_somebody_uses_it(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"))
    assert not shelf.unload("a").loaded
    lease = shelf.lease("a")
    assert shelf.unload("a").loaded
    lease.release()
    assert loader.model("a").closed.wait(WAIT_S)
    shelf.lease("a").release()
    assert not shelf.unload("a").loaded


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("a", ModelName(base="a")),
        ("a:poet", ModelName(base="a", adapter="poet")),
        ("a@direct", ModelName(base="a", strategy="direct")),
        ("a:poet@step-by-step", ModelName(base="a", adapter="poet", strategy="step-by-step")),
        ("default", ModelName(base="a")),
        ("default:poet", ModelName(base="a", adapter="poet")),
        ("", ModelName(base="a")),
        (":poet@direct", ModelName(base="a", adapter="poet", strategy="direct")),
    ],
)
def test_a_request_names_a_model_an_adapter_and_a_strategy(shelf_of: Make, asked: str, name: ModelName) -> None:
    shelf = shelf_of(replace(entry("a"), adapters={"poet": Path("p")}), entry("b"))
    lease = shelf.lease(asked)
    assert lease.name == name
    assert lease.card.id == "a"
    assert shelf.card(asked).id == "a"


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("c", "b, a"),
        ("b:", "b, a"),
        ("b:poet:poet", "b, a"),
        ("../b", "b, a"),
        ("x" * 10_000, "b, a"),
        ("b:poet", "b"),
        ("a:writer", "a, a:poet"),
        ("a@best", "a, a@direct, a@step-by-step"),
    ],
)
def test_an_unknown_name_is_told_what_there_is_the_active_one_first(shelf_of: Make, asked: str, known: str) -> None:
    shelf = shelf_of(replace(entry("a"), adapters={"poet": Path("p")}), entry("b"), active="b")
    for ask in (shelf.lease, shelf.card, shelf.unload, shelf.activate):
        with pytest.raises(UnknownModel) as refused:
            ask(asked)
        assert refused.value.known == known
        assert len(str(refused.value)) < 400


def test_a_list_of_known_names_is_no_longer_than_a_person_reads(shelf_of: Make) -> None:
    shelf = shelf_of(*(entry(f"m{number:03}") for number in range(50)))
    with pytest.raises(UnknownModel, match=r"m019 and 30 more\.$"):
        shelf.card("none")


def test_a_bundle_called_default_is_meant_by_its_name(shelf_of: Make) -> None:
    assert shelf_of(entry("a"), entry("default")).card("default").id == "default"


def test_an_empty_shelf_knows_no_name(shelf_of: Make) -> None:
    shelf = shelf_of()
    assert shelf.cards() == []
    assert shelf.preload() is None
    shelf.wake()
    with pytest.raises(UnknownModel, match="serves: none"):
        shelf.lease("default")


# --- the active one -------------------------------------------------------------------------------


def test_who_was_made_active_is_so_after_a_restart(shelf_of: Make, tmp_path: Path) -> None:
    file = tmp_path / "state" / "active.json"
    shelf = shelf_of(entry("a"), entry("b"), entry("c"), active="c", remembered=Remembered(file))
    assert [card.id for card in shelf.cards()] == ["c", "a", "b"]
    card = shelf.activate("b")
    assert card.active
    assert card.loaded
    assert [card.id for card in shelf.cards()] == ["b", "a", "c"]
    again = shelf_of(entry("a"), entry("b"), entry("c"), active="c", remembered=Remembered(file))
    assert again.lease("default").name.base == "b"


@pytest.mark.parametrize("kept", [b"", b"{}", b"\xff", b'{"active": 7}', b'{"active": "../b"}', b'{"active": "gone"}'])
def test_a_damaged_note_of_who_is_active_is_no_reason_to_fail(shelf_of: Make, tmp_path: Path, kept: bytes) -> None:
    file = tmp_path / "active.json"
    file.write_bytes(kept)
    shelf = shelf_of(entry("a"), entry("b"), active="b", remembered=Remembered(file))
    assert shelf.standing().active == "b"


def test_one_that_cannot_be_loaded_or_answers_nobody_is_not_made_active(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(replace(entry("a"), adapters={"poet": Path("p")}), entry("b"), entry("e", embeds=True))
    loader.errors["b"] = CorruptBundle("b", "it is torn")
    with pytest.raises(CorruptBundle):
        shelf.activate("b")
    for asked in ("e", "a:poet", "a@direct"):
        with pytest.raises(InvalidRequest):
            shelf.activate(asked)
    assert shelf.standing().active == "a"


def test_one_that_cannot_be_kept_is_not_made_active(shelf_of: Make, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, where a folder is to be")
    shelf = shelf_of(entry("a"), entry("b"), remembered=Remembered(tmp_path / "state" / "active.json"))
    with pytest.raises(StorageFailed):
        shelf.activate("b")
    assert shelf.standing().active == "a"


def test_an_encoder_is_active_only_where_nothing_else_is(shelf_of: Make) -> None:
    assert shelf_of(entry("e", embeds=True), entry("z")).standing().active == "z"
    assert shelf_of(entry("e", embeds=True)).standing().active == "e"


def test_waking_loads_the_active_one_and_tells_so_meanwhile(shelf_of: Make, loader: Loader) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a"), entry("b"), active="b")
    assert not shelf.standing().loading
    shelf.wake()
    assert shelf.standing().loading
    loading = beside(shelf.preload)
    assert loader.begun.get(timeout=WAIT_S).id == "b"
    loader.gate.put(None)
    card = loading.result(WAIT_S)
    assert card is not None
    assert card.id == "b"
    assert not shelf.standing().loading
    assert loader.loads == ["b"]


# --- a new scan -----------------------------------------------------------------------------------


def test_a_replaced_bundle_serves_new_leases_while_old_ones_end_on_the_old(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a", "1"), entry("b"))
    lease = shelf.lease("a")
    kept = shelf.lease("b").model
    shelf.reload(found(entry("a", "2"), entry("b")), loader, ShelfSettings())
    old, new = lease.model, shelf.lease("a").model
    assert old.manifest.version == "1"
    assert new.manifest.version == "2"
    assert not loader.models[0].closed.is_set()
    assert shelf.lease("b").model is kept
    lease.release()
    assert loader.models[0].closed.wait(WAIT_S)
    assert shelf.card("a").loaded


def test_who_waits_for_a_bundle_that_is_replaced_meanwhile_gets_the_new_one(shelf_of: Make, loader: Loader) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a", "1"), entry("b"))
    waiting_b = beside(lambda: shelf.lease("b"))
    loader.begun.get(timeout=WAIT_S)  # the thread is busy with another one
    waiting_a = beside(lambda: shelf.lease("a"))
    while not shelf._table.places["a"].waiting:
        time.sleep(0)
    shelf.reload(found(entry("a", "2"), entry("b")), loader, ShelfSettings())
    loader.gate.put(None)
    loader.gate.put(None)
    assert waiting_a.result(WAIT_S).model.manifest.version == "2"
    waiting_b.result(WAIT_S)
    assert loader.loads == ["b", "a"]


def test_a_bundle_replaced_while_it_is_loaded_is_closed_and_the_new_one_loaded(shelf_of: Make, loader: Loader) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a", "1"))
    waiting = beside(lambda: shelf.lease("a"))
    loader.begun.get(timeout=WAIT_S)
    shelf.reload(found(entry("a", "2")), loader, ShelfSettings())
    loader.gate.put(None)
    loader.gate.put(None)
    assert waiting.result(WAIT_S).model.manifest.version == "2"
    assert loader.models[0].closed.wait(WAIT_S)


def test_a_bundle_that_left_the_shelf_is_unknown_and_another_becomes_active(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"), entry("b"))
    lease = shelf.lease("a")
    shelf.reload(found(entry("b")), loader, ShelfSettings())
    with pytest.raises(UnknownModel):
        shelf.lease("a")
    assert shelf.standing().active == "b"
    assert not lease.card.active
    lease.release()
    assert loader.model("a").closed.wait(WAIT_S)


def test_a_reload_brings_other_settings_and_another_way_to_open(shelf_of: Make, loader: Loader, clock: Clock) -> None:
    shelf = shelf_of(entry("a"), entry("b"))
    shelf.lease("a").release()
    other = Loader()
    clock.now += 61
    shelf.reload(found(entry("a"), entry("b")), other, ShelfSettings(idle_unload_s=60))
    assert loader.model("a").closed.wait(WAIT_S)
    shelf.lease("b")
    assert other.loads == ["b"]


def test_a_failure_is_forgotten_when_the_bundle_was_replaced(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a", "1"))
    loader.errors["a"] = CorruptBundle("a", "it is torn")
    with pytest.raises(CorruptBundle):
        shelf.lease("a")
    loader.errors.clear()
    shelf.reload(found(entry("a", "2")), loader, ShelfSettings())
    assert shelf.lease("a").model.manifest.version == "2"
    assert shelf.standing().failures == {}


def test_faults_of_the_folder_are_told_and_stop_nobody(shelf_of: Make) -> None:
    broken = Found(entries=(entry("a"),), faults=(Fault("torn", "it is torn"),))
    shelf = shelf_of(everything=broken)
    assert shelf.standing().faults == (Fault("torn", "it is torn"),)
    assert shelf.lease("a").card.loaded


def test_reloads_and_leases_on_many_threads_never_give_out_a_closed_model(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a", "0"))
    ended = threading.Event()

    def ask() -> int:
        served = 0
        while not ended.is_set():
            lease = shelf.lease("a")
            assert not lease._opened.model.closed.is_set()  # type: ignore[union-attr]
            lease.release()
            served += 1
        return served

    asking = [beside(ask) for _ in range(4)]
    for version in range(1, 30):
        shelf.reload(found(entry("a", str(version))), loader, ShelfSettings())
        shelf.lease("a").release()
    ended.set()
    assert all(future.result(WAIT_S) for future in asking)
    assert shelf.lease("a").model.manifest.version == "29"

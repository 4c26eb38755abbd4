"""Leases under concurrency, loads that fail, and what makes room for what."""

import time
import weakref

import pytest

from device_agent.shelf import ShelfSettings, Tally
from edgekit.errors import (
    BundleError,
    CorruptBundle,
    InvalidRequest,
    Overloaded,
    ShuttingDown,
)
from tests.device_agent.shelf.shelves import MODEL_BYTES, STATE, WAIT_S, Clock, Loader, Make, beside, entry


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
    assert loader.model("a").closed.is_set()


def test_nothing_refers_to_a_model_any_more_when_its_memory_is_swept(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"))
    shelf.lease("a").release()
    (model,) = loader.models
    gone, swept = weakref.ref(model), model.swept
    loader.models.clear()
    del model
    shelf.unload("a")
    assert swept.wait(WAIT_S)
    assert gone() is None

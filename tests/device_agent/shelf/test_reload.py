"""What a new scan changes, and what it leaves alone."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.shelf import Entry, Fault, Found, ShelfSettings
from device_agent.shelf.records import Adapter
from edgekit.errors import (
    CorruptBundle,
    UnknownModel,
)
from tests.device_agent.shelf.shelves import WAIT_S, Clock, Loader, Make, beside, entry, found


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


def test_adapters_come_and_go_while_their_base_stays_loaded(shelf_of: Make, loader: Loader) -> None:
    def with_adapters(*names: str) -> Entry:
        return replace(entry("a"), adapters={name: Adapter(Path(name), "1") for name in names})

    shelf = shelf_of(with_adapters("poet"))
    lease = shelf.lease("a:poet")
    shelf.reload(found(with_adapters("legal")), loader, ShelfSettings())
    assert shelf.lease("a:legal").model is lease.model
    assert loader.model("a").adapters == ["legal"]
    with pytest.raises(UnknownModel):
        shelf.lease("a:poet")
    assert loader.loads == ["a"]


def test_adapters_that_come_while_the_base_is_loaded_are_there_when_it_is(shelf_of: Make, loader: Loader) -> None:
    loader.gated = True
    shelf = shelf_of(entry("a"))
    waiting = beside(lambda: shelf.lease("a"))
    loader.begun.get(timeout=WAIT_S)
    shelf.reload(found(replace(entry("a"), adapters={"poet": Adapter(Path("p"), "1")})), loader, ShelfSettings())
    loader.gate.put(None)
    waiting.result(WAIT_S)
    assert loader.model("a").adapters == ["poet"]

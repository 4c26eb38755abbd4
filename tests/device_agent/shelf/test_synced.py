"""Releases on the shelf beside bundles of the store, and a successor that is loaded before requests move to it."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.activation.records import Switch
from device_agent.releases.records import Installed, Line, Ref
from device_agent.releases.store import Store
from device_agent.shelf import Entry, Fault, Found, Opened, ShelfSettings
from device_agent.shelf.scan import scan
from device_agent.shelf.synced import Leasing, ShelfSwitch, bases, with_releases, with_synced
from edgekit import contract
from edgekit.errors import BundleError, CorruptBundle, Overloaded
from tests.device_agent.bundles import ADAPTABLE, COLD, ENCODER, TINY, WARM, set_fields
from tests.device_agent.shelf.shelves import MODEL_BYTES, WAIT_S, Loader, Make, beside, entry, found
from tests.releases import install_folder, rot

NOTHING = Found(entries=())


@pytest.fixture
def releases(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A store's folder with one bundle, tiny-llama 1."""
    shutil.copytree(TINY, tmp_path / "models" / "one")
    return tmp_path / "models"


def brought(releases: Store, folder: Path, *, version: str | None = None, name: str | None = None) -> Installed:
    """A bundle as a release, with another name or version if it is to have one."""
    copy = Path(shutil.copytree(folder, releases.folder.parent.parent / f"{folder.name}-{version}-{name}"))
    if version or name:
        set_fields(**({"version": version} if version else {}), **({"name": name} if name else {}))(copy)
    one = releases.find(install_folder(releases, copy, sequence=len(releases.installed()) + 1))
    assert one is not None
    return one


def names(shelf: Found) -> dict[str, tuple[str, str]]:
    return {entry.id: (entry.manifest.version, entry.folder.parent.name) for entry in shelf.entries}


def test_a_release_has_its_name_whatever_else_has_it(releases: Store, models: Path) -> None:
    set_fields(version="9")(models / "one")
    one = brought(releases, TINY, version="2")
    shelf = with_releases(scan(models), [one])
    assert names(shelf) == {"tiny-llama": ("2", "releases"), "tiny-llama-9": ("9", "models")}
    assert shelf.aliases == {"tiny-llama-2": "tiny-llama"}
    assert (shelf.preferred, shelf.faults) == ("tiny-llama", ())


def test_a_bundle_of_the_same_name_and_version_is_hidden_by_the_release(releases: Store, models: Path) -> None:
    shelf = with_releases(scan(models), [brought(releases, TINY)])
    assert names(shelf) == {"tiny-llama": ("1", "releases")}
    assert shelf.aliases == {"tiny-llama-1": "tiny-llama"}


def test_other_bundles_keep_their_names_and_aliases(releases: Store, models: Path) -> None:
    shelf = with_releases(scan(models), [brought(releases, ENCODER)])
    assert names(shelf) == {"tiny-llama": ("1", "models"), "tiny-bert": ("1", "releases")}
    assert shelf.aliases == {"tiny-llama-1": "tiny-llama", "tiny-bert-1": "tiny-bert"}
    assert shelf.preferred is None, "an encoder answers nobody"


def test_two_lines_of_a_model_are_two_models(releases: Store) -> None:
    both = [brought(releases, TINY, version=version) for version in ("1.9", "1.10")]
    shelf = with_releases(NOTHING, both)
    assert names(shelf) == {"tiny-llama": ("1.10", "releases"), "tiny-llama-1.9": ("1.9", "releases")}


def test_the_one_bundle_that_somebody_named_is_active_but_for_its_successor(releases: Store) -> None:
    other, same = brought(releases, TINY, name="other"), brought(releases, TINY, version="2")
    for installed, preferred in (([other], "tiny-llama"), ([same], "tiny-llama"), ([other, same], "other")):
        shelf = with_releases(scan(TINY), installed)
        assert not shelf.alone
        assert shelf.preferred == preferred
    assert names(with_releases(scan(TINY), [same]))["tiny-llama"] == ("2", "releases")


def test_a_release_that_cannot_be_read_is_a_fault_and_stops_nobody(releases: Store, models: Path) -> None:
    one = brought(releases, TINY, version="2")
    with releases.repairing(one):
        (one.folder / contract.MANIFEST_FILE).write_text("{")
    shelf = with_releases(scan(models), [one])
    assert names(shelf) == {"tiny-llama": ("1", "models")}
    assert [fault.name for fault in shelf.faults] == [one.ref.folder]


def test_a_bundle_that_calls_itself_otherwise_than_its_release_is_a_fault(releases: Store) -> None:
    one = brought(releases, TINY)
    named = replace(one, ref=Ref(id="other-1", kind="model", sequence=1, sha256=one.ref.sha256))
    shelf = with_releases(NOTHING, [named])
    assert shelf.entries == ()
    assert "it calls itself tiny-llama-1" in shelf.faults[0].problem


def test_adapters_stand_beside_their_base_and_before_others_of_their_name(releases: Store, tmp_path: Path) -> None:
    base = brought(releases, ADAPTABLE)
    store = tmp_path / "store"
    shutil.copytree(ADAPTABLE, store / "three")
    shutil.copytree(WARM, store / contract.ADAPTERS_FOLDER / "mine")
    shutil.copytree(COLD, store / contract.ADAPTERS_FOLDER / "cold")
    warm = brought_adapter(releases, WARM)
    shelf = with_releases(scan(store), [base, warm])
    (only,) = shelf.entries
    assert {name: adapter.folder for name, adapter in only.adapters.items()} == {"warm": warm.folder}
    shelf = with_releases(scan(store), [warm])
    (only,) = shelf.entries
    assert only.adapters["warm"].folder == warm.folder
    assert only.adapters["cold"].folder == store / contract.ADAPTERS_FOLDER / "cold"
    assert shelf.faults == ()


def test_an_adapter_without_its_base_or_that_is_damaged_is_a_fault(releases: Store) -> None:
    warm = brought_adapter(releases, WARM)
    assert with_releases(NOTHING, [warm]).faults == (Fault(warm.ref.folder, "its base tiny-llama is not there"),)
    rot(warm.folder / contract.ADAPTER_MANIFEST_FILE)
    (fault,) = with_releases(scan(ADAPTABLE), [warm]).faults
    assert fault.name == warm.ref.folder


def brought_adapter(releases: Store, folder: Path) -> Installed:
    one = releases.find(install_folder(releases, folder, sequence=9))
    assert one is not None
    return one


def test_a_base_is_found_by_its_name_a_release_first(releases: Store, models: Path) -> None:
    find = bases(releases, models)
    assert find("tiny-llama") == models / "one"
    assert find("nobody") is None
    (models / "torn").mkdir()
    (models / "torn" / contract.MANIFEST_FILE).write_text("{")
    one = brought(releases, TINY, version="2")
    releases.change(lambda state: state.with_line(Line(channel="stable", active=one.ref)))
    assert find("tiny-llama") == one.folder
    assert bases(Store(models), TINY)("tiny-llama") == TINY
    assert bases(Store(models), models / "nowhere")("tiny-llama") is None


def test_a_release_that_cannot_be_read_is_a_fault_and_the_one_before_it_serves(releases: Store) -> None:
    old, new = (brought(releases, TINY, version=number) for number in ("1", "2"))
    releases.change(lambda state: state.with_line(Line(channel="stable", active=new.ref, previous=old.ref)))
    assert [entry.folder for entry in with_synced(NOTHING, releases).entries] == [new.folder]
    rot(new.folder / contract.MANIFEST_FILE)
    found = with_synced(NOTHING, releases)
    assert [entry.folder for entry in found.entries] == [old.folder]
    assert [fault.name for fault in found.faults] == [new.ref.folder]
    rot(old.folder / contract.MANIFEST_FILE)
    found = with_synced(NOTHING, releases)
    assert ({fault.name for fault in found.faults}, found.entries) == ({old.ref.folder, new.ref.folder}, ())


def test_without_any_release_nothing_changes(releases: Store) -> None:
    assert with_synced(NOTHING, releases) is NOTHING


# --- leases -----------------------------------------------------------------------------------


def test_a_release_that_is_open_is_leased_until_it_is_closed(releases: Store) -> None:
    one = brought(releases, TINY)
    leasing = Leasing(releases, lambda _: Opened())
    (made,) = with_releases(NOTHING, [one]).entries
    opened = leasing(made)
    releases.collect()
    assert releases.find(one.ref) is not None
    opened.close()
    opened.sweep()
    releases.collect()
    assert releases.find(one.ref) is None


def test_a_release_that_cannot_be_opened_is_not_leased(releases: Store) -> None:
    def broken(_: Entry) -> Opened:
        raise CorruptBundle("tiny", "it is torn")

    one = brought(releases, TINY)
    (made,) = with_releases(NOTHING, [one]).entries
    with pytest.raises(CorruptBundle):
        Leasing(releases, broken)(made)
    assert releases.doubts == {one.ref}
    releases.collect()
    assert releases.find(one.ref) is None


def test_a_bundle_of_the_store_needs_no_lease(tmp_path: Path) -> None:
    leasing = Leasing(Store(tmp_path / "home"), lambda _: Opened())
    leasing(scan(TINY).entries[0]).sweep()
    assert not (tmp_path / "home").exists()


# --- moving over ------------------------------------------------------------------------------


def test_requests_move_to_a_successor_that_is_loaded_already(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a", "1"))
    old = shelf.lease("a")
    loader.gated = True
    moving = beside(lambda: shelf.replace(found(entry("a", "2")), loader, ShelfSettings()))
    loader.begun.get(timeout=WAIT_S)
    assert shelf.lease("a").model is old.model, "the one before serves meanwhile"
    loader.gate.put(None)
    moving.result(WAIT_S)
    loads = list(loader.loads)
    new = shelf.lease("a").model
    assert (new.manifest.version, loader.loads) == ("2", loads)
    old.release()


def test_a_successor_that_cannot_be_loaded_changes_nothing(shelf_of: Make) -> None:
    shelf = shelf_of(entry("a", "1"))
    kept = shelf.lease("a").model

    def broken(_: Entry) -> Opened:
        raise CorruptBundle("a", "it is torn")

    with pytest.raises(BundleError, match="it is torn"):
        shelf.replace(found(entry("a", "2")), broken, ShelfSettings())
    assert shelf.lease("a").model is kept
    assert shelf.standing().failures == {}


def test_where_memory_has_no_room_for_both_the_successor_is_loaded_when_the_one_before_is_left(
    shelf_of: Make, loader: Loader
) -> None:
    tight = ShelfSettings(max_loaded_bytes=MODEL_BYTES)
    shelf = shelf_of(entry("a", "1"), settings=tight)
    old = shelf.lease("a")
    shelf.replace(found(entry("a", "2")), loader, tight)
    with pytest.raises(Overloaded):
        shelf.lease("a")
    old.release()
    assert shelf.lease("a").model.manifest.version == "2"


def test_one_that_nobody_had_loaded_is_loaded_when_somebody_asks(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a", "1"))
    shelf.replace(found(entry("a", "2"), entry("b")), loader, ShelfSettings())
    assert loader.loads == []
    assert shelf.lease("a").model.manifest.version == "2"


def test_leases_on_many_threads_while_successors_come_are_never_refused(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a", "0"))
    shelf.lease("a").release()
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
    for version in range(1, 20):
        shelf.replace(found(entry("a", str(version))), loader, ShelfSettings(max_loaded_bytes=100 * MODEL_BYTES))
    ended.set()
    assert all(future.result(WAIT_S) for future in asking)
    assert shelf.lease("a").model.manifest.version == "19"


def test_who_is_preferred_is_active_unless_somebody_was_made_so(shelf_of: Make) -> None:
    both = Found(entries=(entry("a"), entry("b")), preferred="b")
    assert shelf_of(everything=both).standing().active == "b"
    assert shelf_of(everything=both, active="a").standing().active == "a"


# --- the switch -------------------------------------------------------------------------------


def ref_in(folder: str) -> Ref:
    name, _, digest = folder.rpartition(".")
    return Ref(id=name, kind="model", sequence=1, sha256=digest.ljust(64, "0"))


def test_the_switch_tells_what_is_wrong_with_a_release(shelf_of: Make, loader: Loader) -> None:
    good, bad, torn = (ref_in(f"{name}-1.0123456789ab") for name in ("good", "bad", "torn"))
    entries = tuple(replace(entry(ref.id), folder=Path("/releases", ref.folder)) for ref in (good, bad))
    loader.errors["bad-1"] = CorruptBundle("bad", "its weights are none")
    shelf = shelf_of(everything=Found(entries=entries, faults=(Fault(torn.folder, "it is torn"),)))
    switch = ShelfSwitch()
    as_switch: Switch = switch
    assert as_switch.faults(bad) is None
    as_switch.serve()
    switch.spare()
    switch.attach(shelf, lambda: None)
    with pytest.raises(CorruptBundle):
        shelf.lease("bad-1")
    assert switch.faults(good) is None
    assert "its weights are none" in (switch.faults(bad) or "")
    assert switch.faults(torn) == "it is torn"


def test_the_switch_lets_go_of_what_nobody_uses(shelf_of: Make, loader: Loader) -> None:
    shelf = shelf_of(entry("a"), entry("b"))
    switch = ShelfSwitch()
    switch.attach(shelf, lambda: None)
    used = shelf.lease("a")
    shelf.lease("b").release()
    switch.spare()
    assert loader.model("b").closed.wait(WAIT_S)
    assert not loader.model("a").closed.is_set()
    used.release()

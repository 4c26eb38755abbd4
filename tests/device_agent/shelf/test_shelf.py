"""What a request may call a model, and who is active."""

from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.http.services import ModelName
from device_agent.shelf.records import Adapter
from device_agent.shelf.remembered import Remembered
from edgekit.errors import (
    CorruptBundle,
    InvalidRequest,
    StorageFailed,
    UnknownModel,
)
from tests.device_agent.shelf.shelves import WAIT_S, Loader, Make, beside, entry


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
    shelf = shelf_of(replace(entry("a"), adapters={"poet": Adapter(Path("p"), "1")}), entry("b"))
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
    shelf = shelf_of(replace(entry("a"), adapters={"poet": Adapter(Path("p"), "1")}), entry("b"), active="b")
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
    shelf = shelf_of(
        replace(entry("a"), adapters={"poet": Adapter(Path("p"), "1")}), entry("b"), entry("e", embeds=True)
    )
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

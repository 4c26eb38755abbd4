"""Which adapters stand beside which bundle, and how a model in memory gets them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.shelf import adapters as room
from device_agent.shelf.opening import Adapting
from device_agent.shelf.records import Adapter
from device_agent.shelf.scan import scan
from edgekit import contract
from edgekit.adapter import AdapterFolder, AdapterManifest, Base
from edgekit.bundle import Bundle
from edgekit.errors import WrongBase
from edgekit.manifest import FileEntry
from tests.device_agent.bundles import TINY, set_fields
from tests.device_agent.shelf.shelves import entry


def write(folder: Path, name: str, *, base: str = "tiny-llama") -> None:
    """The form of an adapter; whether it fits is what `fits` says."""
    folder.mkdir(parents=True)
    (folder / contract.ADAPTER_WEIGHTS_FILE).write_bytes(b"weights")
    made = AdapterManifest(
        format=1,
        name=name,
        version="1",
        base=Base(name=base, version="1", fingerprint="0" * 64),
        ranks={"layers.0.qkv": 2},
        files=(FileEntry(contract.ADAPTER_WEIGHTS_FILE, 7, "0" * 64),),
        source="somewhere",
        quality={},
    )
    (folder / contract.ADAPTER_MANIFEST_FILE).write_bytes(made.to_bytes())


@pytest.fixture(autouse=True)
def _fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """All adapters fit version 1 of every bundle, and no other."""

    def fits(adapter: AdapterFolder, base: Bundle) -> None:
        if base.manifest.version != "1":
            raise WrongBase(str(adapter.folder), "other weights")

    monkeypatch.setattr(room, "check", fits)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        shutil.copytree(TINY, tmp_path / name)
    set_fields(version="2")(tmp_path / "two")
    return tmp_path


def names(store: Path) -> dict[str, list[str]]:
    return {entry.id: sorted(entry.adapters) for entry in scan(store).entries}


def test_adapters_of_the_store_and_of_a_bundle_stand_beside_it(store: Path) -> None:
    write(store / "adapters" / "x", "poet")
    write(store / "one" / "adapters" / "y", "legal")
    write(store / "one" / "adapters" / ".partial", "half")
    (store / "adapters" / "notes").mkdir()
    assert names(store) == {"tiny-llama": [], "tiny-llama-1": ["legal", "poet"]}
    assert scan(store).faults == ()
    assert names(store / "one") == {"tiny-llama": ["legal"]}


def test_a_bundles_own_goes_before_the_stores(store: Path) -> None:
    write(store / "adapters" / "x", "poet")
    write(store / "one" / "adapters" / "y", "poet")
    (found,) = (entry for entry in scan(store).entries if entry.adapters)
    assert found.adapters["poet"].folder == store / "one" / "adapters" / "y"


def test_adapters_that_fit_nothing_are_faults_and_stop_nobody(store: Path) -> None:
    write(store / "adapters" / "lost", "poet", base="another")
    write(store / "adapters" / "torn", "poet")
    (store / "adapters" / "torn" / contract.ADAPTER_MANIFEST_FILE).write_text("{")
    write(store / "two" / "adapters" / "other", "poet")
    faults = {fault.name: fault.problem for fault in scan(store).faults}
    assert set(faults) == {"adapters/lost", "adapters/torn", "two/adapters/other"}
    assert "its base another is not there" in faults["adapters/lost"]
    assert "other weights" in faults["two/adapters/other"]
    assert len(scan(store).entries) == 2


def test_more_adapters_than_anybody_has_are_not_all_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_ADAPTERS", 1)
    for name in ("a", "b"):
        write(store / "adapters" / name, name)
    assert names(store)["tiny-llama-1"] == ["a"]
    assert "only the first 1 adapters" in scan(store).faults[0].problem


class FakeModel:
    """Writes down what is added and removed; refuses what is called `bad`."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def add_adapter(self, folder: Path) -> None:
        if folder.name == "bad":
            raise WrongBase("bad", "other weights")
        self.told.append(f"+{folder.name}")

    def remove_adapter(self, name: str) -> None:
        self.told.append(f"-{name}")


def test_a_model_in_memory_is_told_only_of_changes(caplog: pytest.LogCaptureFixture) -> None:
    def with_adapters(versions: dict[str, str]) -> None:
        found = {name: Adapter(Path(name), version) for name, version in versions.items()}
        adapting.adapt(replace(entry("a"), adapters=found))

    model = FakeModel()
    adapting = Adapting(model, "a")
    with_adapters({"poet": "1", "bad": "1"})
    assert "the adapter bad of a cannot be used" in caplog.text
    with_adapters({"poet": "1"})
    with_adapters({"poet": "2", "legal": "1"})
    with_adapters({"legal": "1"})
    assert model.told == ["+poet", "+poet", "+legal", "-poet"]

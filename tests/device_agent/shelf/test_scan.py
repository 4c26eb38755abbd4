"""What stands on a shelf: one bundle, or a folder of them, some of which are broken."""

import hashlib
import shutil
from pathlib import Path

import pytest

from device_agent.shelf import scan as room
from device_agent.shelf.scan import named, scan
from edgekit import contract
from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import CorruptBundle, NotABundle
from tests.device_agent.bundles import ENCODER, TINY, copy_to, set_fields
from tests.device_agent.shelf.shelves import entry


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Two good bundles, and what else may lie about."""
    for name, source in (("one", TINY), ("two", ENCODER)):
        shutil.copytree(source, tmp_path / name)
    (tmp_path / "adapters").mkdir()
    (tmp_path / "readme.txt").write_text("nothing")
    shutil.copytree(TINY, tmp_path / ".one.partial-x")
    return tmp_path


def test_a_folder_of_bundles_is_a_shelf(shelf: Path) -> None:
    found = scan(shelf)
    assert [entry.id for entry in found.entries] == ["tiny-bert", "tiny-llama"]
    assert found.faults == ()
    assert not found.alone
    assert found.aliases == {"tiny-llama-1": "tiny-llama", "tiny-bert-1": "tiny-bert"}
    (tiny,) = (entry for entry in found.entries if entry.id == "tiny-llama")
    raw = (TINY / contract.MANIFEST_FILE).read_bytes()
    assert tiny.sha256 == hashlib.sha256(raw).hexdigest()
    assert tiny.folder == shelf / "one"
    assert tiny.created == int((shelf / "one" / contract.MANIFEST_FILE).stat().st_mtime)


def test_one_bundle_is_a_shelf_of_its_own() -> None:
    found = scan(TINY)
    assert [entry.id for entry in found.entries] == ["tiny-llama"]
    assert found.alone


def test_a_broken_bundle_is_told_and_leaves_the_others(shelf: Path, caplog: pytest.LogCaptureFixture) -> None:
    (shelf / "two" / contract.MODEL_FILE).unlink()
    (shelf / "three").mkdir()
    (shelf / "three" / contract.MANIFEST_FILE).write_text("{")
    found = scan(shelf)
    assert [entry.id for entry in found.entries] == ["tiny-llama"]
    assert [fault.name for fault in found.faults] == ["three", "two"]
    assert "model.onnx is missing" in found.faults[1].problem
    assert "two" in caplog.text


def test_one_bundle_that_is_broken_or_none_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotABundle):
        scan(tmp_path / "nowhere")
    folder = copy_to(tmp_path)
    (folder / contract.MODEL_FILE).unlink()
    with pytest.raises(CorruptBundle, match="missing"):
        scan(folder)


def test_a_bundle_that_may_not_be_read_is_a_fault(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(room, "sha256_of", refused)
    assert [fault.name for fault in scan(shelf).faults] == ["one", "two"]


def test_an_empty_folder_is_an_empty_shelf(tmp_path: Path) -> None:
    assert scan(tmp_path).entries == ()


def test_the_card_is_read_as_far_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_CARD_BYTES", 10)
    source = next((path for path in (TINY, ENCODER) if (path / contract.CARD_FILE).is_file()), None)
    assert source is not None
    assert scan(source).entries[0].text == (source / contract.CARD_FILE).read_bytes()[:10].decode()


def test_more_folders_than_anybody_has_are_not_all_read(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_FOLDERS", 1)
    found = scan(shelf)
    assert [entry.folder.name for entry in found.entries] == ["one"]
    assert "only the first 1 bundles" in found.faults[0].problem


def test_the_newest_version_has_the_name_and_each_has_one_with_its_version() -> None:
    old, new = entry("a", "1.9"), entry("a", "1.10")
    found = named([old, new, entry("b", "1")])
    assert {entry.id: entry.manifest.version for entry in found.entries} == {"a": "1.10", "a-1.9": "1.9", "b": "1"}
    assert found.aliases == {"a-1.10": "a", "b-1": "b"}
    assert found.faults == ()


def test_two_of_one_name_and_version_are_one_and_a_fault() -> None:
    found = named([entry("a", "1", sha256="x"), entry("a", "1", sha256="y")])
    assert [entry.sha256 for entry in found.entries] == ["x"]
    assert "same name and version" in found.faults[0].problem


def test_a_name_goes_before_another_bundles_name_and_version() -> None:
    found = named([entry("a", "2"), entry("a", "1"), entry("a-1", "7"), entry("a-2", "7")])
    assert {entry.id: entry.manifest.version for entry in found.entries} == {"a": "2", "a-1": "7", "a-2": "7"}
    assert found.aliases == {"a-1-7": "a-1", "a-2-7": "a-2"}
    assert "another bundle is called a-1" in found.faults[0].problem


def test_a_bundle_that_is_replaced_while_it_is_read_is_a_fault(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(folder: Path) -> Bundle:
        bundle = open_bundle(folder)
        if folder.name == "one":
            set_fields(version="2")(folder)
        return bundle

    monkeypatch.setattr(room, "open_bundle", replaced)
    assert [fault.name for fault in scan(shelf).faults] == ["one"]

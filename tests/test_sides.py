"""Every test is of the device's side or of the build machine's: CI runs both, each once."""

import itertools
from pathlib import Path

import pytest

from tests import conftest
from tests.imports import ROOT
from tests.sides import OTHER_MARKERS, is_file_of_device, is_folder_of_device, is_of_device

DEVICE = ROOT / "tests" / "edgekit" / "test_slots.py"
BUILD = ROOT / "tests" / "export" / "test_cli.py"


class Options:
    """What pytest was given, as its Config says it."""

    def __init__(self, *given: str) -> None:
        self._given = given

    def getoption(self, name: str) -> bool:
        return name in self._given


class Item:
    """A test, as far as conftest.py looks at it."""

    def __init__(self, path: Path, *markers: str) -> None:
        self.path, self._markers = path, markers

    def iter_markers(self) -> list[pytest.Mark]:
        return [getattr(pytest.mark, name).mark for name in self._markers]


def wanted(item: Item, *given: str) -> bool:
    return conftest._is_wanted(item, Options(*given))  # type: ignore[arg-type]


@pytest.mark.parametrize("markers", [(), ("long",), *((marker,) for marker in sorted(OTHER_MARKERS))])
@pytest.mark.parametrize("path", [DEVICE, BUILD])
def test_each_test_is_of_one_side(path: Path, markers: tuple[str, ...]) -> None:
    item = Item(path, *markers)
    assert wanted(item, "long", "device_only") != wanted(item, "long", "build_side")
    assert wanted(item, "long")


def test_a_device_runs_what_its_install_can_import() -> None:
    assert is_of_device(DEVICE, ())
    assert not is_of_device(DEVICE, ("programs",))
    assert not is_of_device(BUILD, ())


def test_long_tests_are_left_out_of_both_sides() -> None:
    for path, side in itertools.product((DEVICE, BUILD), ("device_only", "build_side")):
        assert not wanted(Item(path, "long"), side)


def test_no_file_of_the_device_is_in_a_folder_that_is_passed_over() -> None:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if is_file_of_device(path)]
    assert len(files) > 50
    assert all(is_folder_of_device(folder) for file in files for folder in file.parents if folder.is_relative_to(ROOT))

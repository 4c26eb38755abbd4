"""Rules that hold for every test: no network but this machine's own, and which side's tests are run."""

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.imports import ROOT
from tests.sides import is_file_of_device, is_folder_of_device, is_of_device

# Two cores that other work shares: how long an example takes says nothing about the code.
settings.register_profile("edgekit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgekit")


@pytest.fixture(scope="session", autouse=True)
def _agent_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the agent keeps for itself goes into a folder of this run, not into the home of who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_HOME", str(tmp_path_factory.mktemp("agent") / "home"))
        yield


CLIENT_TESTS = ROOT / "tests" / "clients"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--clients",
        metavar="PYTHON",
        help="only the tests of client libraries; the agent runs on this Python",
    )
    parser.addoption("--long", action="store_true", help="also tests that take long")
    sides = parser.getgroup("sides", "of which side of edgekit tests are run (tests/sides.py); both, if not said")
    sides.addoption(
        "--device-only",
        action="store_true",
        help="only tests of the device side that need nothing but the device's install (their imports tell)",
    )
    sides.addoption("--build-side", action="store_true", help="only the tests that --device-only leaves out")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests of client libraries run alone, since only their environment has the libraries.

    With `--device-only`, do not even import what needs more than a device has.
    """
    if (CLIENT_TESTS in (collection_path, *collection_path.parents)) and not config.getoption("clients"):
        return True
    if not config.getoption("device_only"):
        return None
    if collection_path.is_dir():  # its conftest.py would be imported even if none of its tests were taken
        return None if is_folder_of_device(collection_path) else True
    return None if collection_path.suffix != ".py" or is_file_of_device(collection_path) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = [item for item in items if _is_wanted(item, config)]
    if len(wanted) < len(items):
        kept = set(wanted)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = wanted


def _is_wanted(item: pytest.Item, config: pytest.Config) -> bool:
    markers = {mark.name for mark in item.iter_markers()}
    if "long" in markers and not config.getoption("long"):
        return False
    of_device = is_of_device(item.path, markers)
    return not config.getoption("build_side" if of_device else "device_only")


@pytest.fixture(autouse=True)
def _only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails at once instead of passing where there happens to be a network."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

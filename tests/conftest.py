"""Rules that hold for every test: no network but this machine's own, and `--device-only`."""

import ipaddress
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.imports import ROOT, rooms_of

# Two cores that other work shares: how long an example takes says nothing about the code.
settings.register_profile("edgekit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgekit")

DEVICE_TESTS = (ROOT / "tests" / "edgekit", ROOT / "tests" / "device_agent", ROOT / "tests" / "packaging" / "install")
DEVICE_MODULES = {
    *("edgekit", "device_agent"),
    *(
        "click",
        "flask",
        "jinja2",
        "llguidance",
        "msgspec",
        "numpy",
        "onnxruntime",
        "psutil",
        "securesystemslib",
        "tokenizers",
        "tuf",
        "urllib3",
        "waitress",
        "werkzeug",
    ),
    *("hypothesis", "packaging", "pytest"),  # `packaging` is a part of pytest
}
OTHER_MARKERS = {"browser", "demo", "encoder", "genai", "programs", "reference"}


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
    parser.addoption(
        "--device-only",
        action="store_true",
        help="only tests of the device side that need nothing but the device's install (their imports tell)",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests of client libraries run alone, since only their environment has the libraries.

    With `--device-only`, leave out files of the build side, and those that import more than a device has.
    """
    if (CLIENT_TESTS in (collection_path, *collection_path.parents)) and not config.getoption("clients"):
        return True
    if not config.getoption("device_only"):
        return None
    if collection_path.is_dir():  # its conftest.py would be imported even if none of its tests were taken
        related = any(
            collection_path in (folder, *folder.parents) or folder in collection_path.parents for folder in DEVICE_TESTS
        )
        return None if related else True
    if collection_path.suffix != ".py":
        return None
    if not any(folder in collection_path.parents for folder in DEVICE_TESTS):
        return True
    return bool(rooms_of(collection_path) - DEVICE_MODULES - sys.stdlib_module_names) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unwanted = set() if config.getoption("long") else {"long"}
    if config.getoption("device_only"):
        unwanted |= OTHER_MARKERS
    elsewhere = [item for item in items if unwanted & {mark.name for mark in item.iter_markers()}]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


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

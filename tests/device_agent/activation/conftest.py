"""A device for every test of this room."""

from pathlib import Path

import pytest

from device_agent.releases.store import Store
from tests.device_agent.activation.faked import Device, device, silent
from tests.releases import CHANNEL, install


@pytest.fixture
def made(tmp_path: Path) -> Device:
    """A device on which version 1 was active, and version 2 is."""
    found = device(Store(tmp_path / "home"))
    for version in ("1", "2"):
        found.activation.try_release(CHANNEL, install(found.store, version), tell=silent)
    found.probe.tried.clear()
    found.probe.tries_left.clear()
    return found

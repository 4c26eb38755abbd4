from pathlib import Path

import pytest

from tests.device_agent.sync.trust.devices import Device, published


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """One that has seen all that its repository published so far."""
    device = Device(tmp_path, published())
    device.refresh()
    return device

"""A store with an active release, and the one before it."""

from pathlib import Path

import pytest

from device_agent.releases.records import Line, Ref, State
from device_agent.releases.store import Store
from tests.releases import CHANNEL, install


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def refs(store: Store) -> tuple[Ref, Ref]:
    """Version 1, which is the previous one, and version 2, which is active."""
    previous, active = install(store, "1"), install(store, "2")
    store.write(State(lines=(Line(channel=CHANNEL, active=active, previous=previous),)))
    return previous, active

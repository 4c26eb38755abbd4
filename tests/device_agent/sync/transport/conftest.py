"""Servers of one small repository."""

from collections.abc import Iterator

import pytest

from tests.device_agent.sync.transport.opening import FILES
from tests.hostile_http import Hostile


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile(FILES) as hostile:
        yield hostile


@pytest.fixture
def second() -> Iterator[Hostile]:
    with Hostile(FILES) as hostile:
        yield hostile


@pytest.fixture
def dead() -> str:
    """The address of a server that is not there any more."""
    with Hostile({}) as hostile:
        return hostile.url

"""A shelf of fakes, and its loader and clock."""

from collections.abc import Iterator

import pytest

from device_agent.shelf import Entry, Found, Shelf, ShelfSettings
from device_agent.shelf.remembered import Remembered
from tests.device_agent.shelf.shelves import MODEL_BYTES, Clock, Loader, Make, found


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf_of(loader: Loader, clock: Clock) -> Iterator[Make]:
    """Makes shelves of entries; each is closed after the test."""
    made: list[Shelf] = []

    def make(
        *entries: Entry,
        settings: ShelfSettings | None = None,
        active: str | None = None,
        remembered: Remembered | None = None,
        everything: Found | None = None,
    ) -> Shelf:
        shelf = Shelf(
            everything or found(*entries),
            loader,
            settings or ShelfSettings(max_loaded_bytes=100 * MODEL_BYTES),
            active=active,
            remembered=remembered,
            strategies=("direct", "step-by-step"),
            clock=clock,
            available=lambda: 100 * MODEL_BYTES,
        )
        shelf.start()
        made.append(shelf)
        return shelf

    yield make
    for shelf in made:
        for _ in loader.models:
            loader.gate.put(None)
        shelf.close()

"""How thoroughly crashes are explored (a share in every run, everything with `--long`), and on which disk."""

import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.sync import composing
from tests.crashes.figures import FIGURES, table

MEMORY = Path("/dev/shm")
NEEDED_BYTES = 1 << 30
"""Containers often have a few megabytes there."""


@pytest.fixture(scope="session")
def converge_every(request: pytest.FixtureRequest) -> int:
    return 1 if request.config.getoption("long") else 10


@pytest.fixture(scope="session")
def kill_every(request: pytest.FixtureRequest) -> int:
    return 1 if request.config.getoption("long") else 17


@pytest.fixture(scope="session")
def resume_every(request: pytest.FixtureRequest) -> int:
    """As `kill_every`, for what is begun anew after it was killed: a whole publish, not a short recovery."""
    return 1 if request.config.getoption("long") else 51


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory, where there is one: the explorer is the disk, and the real one would only take its time."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < NEEDED_BYTES:
        yield tmp_path_factory.mktemp("crashes")
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="edgekit-crashes-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _same_machine() -> Iterator[None]:
    """It is looked at once: thousands of devices start here, and each would read what is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composing, "here", functools.cache(composing.here))
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, if crashes were explored."""
    if found := config.stash.get(FIGURES, None):
        terminalreporter.section("crashes that were explored")
        for line in table(found):
            terminalreporter.write_line(line)

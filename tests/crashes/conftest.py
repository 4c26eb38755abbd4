"""How thoroughly crashes are explored: a share in every run, everything with `--long`."""

import pytest


@pytest.fixture(scope="session")
def converge_every(request: pytest.FixtureRequest) -> int:
    return 1 if request.config.getoption("long") else 10


@pytest.fixture(scope="session")
def kill_every(request: pytest.FixtureRequest) -> int:
    return 1 if request.config.getoption("long") else 17

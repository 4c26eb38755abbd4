"""Rows over real graphs, each loaded once."""

from pathlib import Path

import numpy as np
import pytest

from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.rows import Floats
from edgekit.bundle import open_bundle
from tests.device_agent.engine.real import TOLERANCES, Same, emptied, opened


@pytest.fixture(scope="module", params=TOLERANCES, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture(scope="module")
def loaded(folder: Path) -> OnnxRows:
    return opened(open_bundle(folder))


@pytest.fixture(scope="module")
def other_loaded(folder: Path) -> OnnxRows:
    return opened(open_bundle(folder))


@pytest.fixture
def rows(loaded: OnnxRows) -> OnnxRows:
    """Empty ones."""
    return emptied(loaded)


@pytest.fixture
def fresh(other_loaded: OnnxRows) -> OnnxRows:
    """Rows of the same model, to compare with."""
    return emptied(other_loaded)


@pytest.fixture
def same(folder: Path) -> Same:
    def check(found: Floats, expected: Floats) -> None:
        assert found.shape == expected.shape
        largest = float(np.abs(expected).max(initial=0.0))
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCES[folder] * largest)

    return check

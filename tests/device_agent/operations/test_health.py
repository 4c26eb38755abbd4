"""What an agent says of itself."""

from dataclasses import replace

import pytest

from device_agent.http.services import Health
from device_agent.operations.health import LEAST_FREE_BYTES, MOST_REASONS, health
from device_agent.shelf import Fault, Standing

WELL = Standing(active="a", loading=False, failures={}, faults=())


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        pytest.param(WELL, Health(status="ok"), id="well"),
        pytest.param(
            replace(WELL, loading=True),
            Health(status="loading", reasons=("a is being loaded",), ready=False),
            id="loading",
        ),
        pytest.param(
            replace(WELL, active=None),
            Health(status="degraded", reasons=("there is no model",), ready=False),
            id="an empty shelf",
        ),
        pytest.param(
            replace(WELL, failures={"a": "/secret/path"}),
            Health(status="degraded", reasons=("a could not be loaded",), ready=False),
            id="the active one cannot be loaded",
        ),
        pytest.param(
            replace(WELL, failures={"b": "/secret/path"}),
            Health(status="degraded", reasons=("b could not be loaded",)),
            id="another one cannot be loaded",
        ),
        pytest.param(
            replace(WELL, faults=(Fault("torn", "/secret/path"),)),
            Health(status="degraded", reasons=("the bundle in torn cannot be used",)),
            id="a broken bundle",
        ),
    ],
)
def test_health_follows_from_how_the_shelf_is(standing: Standing, expected: Health) -> None:
    assert health(standing) == expected


def test_trouble_around_the_models_is_told_and_stops_nothing() -> None:
    found = health(WELL, trouble="disk I/O error in /secret/path", free_bytes=LEAST_FREE_BYTES - 1)
    assert found == Health(
        status="degraded", reasons=("the ledger of tokens cannot be written", "the disk is almost full")
    )
    assert health(WELL, free_bytes=LEAST_FREE_BYTES).status == "ok"


def test_an_agent_that_stops_is_not_ready() -> None:
    assert not health(WELL, stopping=True).ready


def test_a_thousand_faults_do_not_make_a_long_answer() -> None:
    faults = tuple(Fault(str(number), "") for number in range(1_000))
    assert len(health(replace(WELL, faults=faults)).reasons) == MOST_REASONS

"""The endurance run with a tiny model: a few updates, each with a fault."""

from pathlib import Path

import pytest

from tests import tiny
from tests.bench.endurance import contents, table
from tests.endurance.faults import FAULTS, KILLS
from tests.endurance.run import Plan, run

SEED = 7
"""Of which the short run has a bad network, a flipped bit, and two kinds of kill."""


@pytest.mark.parametrize(("updates", "kills"), [(3, 2), pytest.param(34, 17, marks=pytest.mark.long)])
def test_device_survives_updates_with_faults(tmp_path: Path, updates: int, kills: int) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny")
    plan = Plan(contents(source, tmp_path / "exports", noise=0.3), frozenset(), updates, kills, SEED)
    said: list[str] = []
    report = run(plan, tmp_path, said.append)
    assert report.wrong == [], "\n".join(said)
    assert report.updates == updates
    assert sum(report.kills.values()) >= kills
    assert report.answers["answered"] > updates
    assert str(updates) in table(report)


def test_every_fault_has_its_turn_and_one_agent_lives_through_half_of_them() -> None:
    plan = Plan({}, frozenset(), 200, 100, 1)
    found = plan.faults()
    assert set(found) == {*FAULTS, *KILLS}
    assert (len(found), sum(name in KILLS for name in found)) == (200, 100)
    ends = [{**FAULTS, **KILLS}[name].ends_agent for name in found]
    assert ends == sorted(ends)

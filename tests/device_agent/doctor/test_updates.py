"""What the doctor says of updates."""

import time
from pathlib import Path

import pytest

from device_agent.doctor.updates import UpdateFacts, findings, probe
from device_agent.sync.identity import enrol
from tests.repositories import Repository

NOW = 1_800_000_000.0
DAY = 86_400.0


def facts(**changed: object) -> UpdateFacts:
    usual = {"enrolled": True, "now": NOW, "repositories": 1, "expires": NOW + 20 * DAY, "checked_at": NOW - 3600}
    return UpdateFacts(**(usual | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (UpdateFacts(enrolled=False), "green", "follows no repository"),
        (facts(), "green", "last looked 2027-01-15 07:00 UTC"),
        (facts(checked_at=None), "green", "not looked yet"),
        (facts(problem="device.json is damaged", hint="enrol it"), "red", "device.json"),
        (facts(repositories=0), "red", "no repository"),
        (facts(clock_reliable=False), "amber", "clock"),
        (facts(fresh=False, expires=NOW - DAY), "amber", "out of date"),
        (facts(expires=NOW + DAY), "amber", "good until 2027-01-16"),
        (facts(checked_at=NOW - 8 * DAY), "amber", "since 2027-01-07"),
        (facts(refused=("tiny-2.0 failed here: it hung",)), "amber", "it hung"),
    ],
)
def test_each_rule(found: UpdateFacts, status: str, says: str) -> None:
    (finding,) = findings(found)
    assert (finding.check, finding.status) == ("updates", status)
    assert says in finding.detail
    assert bool(finding.hint) == (status != "green")


def test_a_device_is_looked_at_without_any_network(tmp_path: Path) -> None:
    assert not probe(tmp_path, repositories=0, now=time.time()).enrolled
    enrol(tmp_path, Repository().provisioning(), device_id=None, labels={})
    found = probe(tmp_path, repositories=0, now=time.time())
    assert (found.enrolled, found.repositories, found.problem) == (True, 0, "")
    (tmp_path / "sync" / "device.json").write_bytes(b"{")
    assert "damaged" in probe(tmp_path, repositories=0, now=time.time()).problem

"""A rollout from end to end: devices that were enrolled report to a plain web server, and the build machine goes on."""

import textwrap
from pathlib import Path

import pytest
import urllib3

from device_agent.sync import courier
from edgekit.release.channel import SLICES, RampStep, slice_of
from edgekit.release.reports import MAX_REPORT_BYTES
from export.publish.channels import Wish, changed
from export.publish.devices import FleetFile, Gathered
from export.publish.repository import Change
from export.publish.rollout import Limits, Status, next_move, status, widened
from tests.end_to_end.offline import Works, works
from tests.export.publish.publishers import NOW
from tests.servers import nginx

EARLY = sum(slice_of("salt", f"till-{i}") < SLICES / 2 for i in range(8))
"""Of eight devices, how many are in the first half."""
LIMITS = Limits(min_ok=2, max_fail_percent=20)


def documented(reports: Path) -> str:
    """The lines for nginx that the courier's text shows, for a folder of this test."""
    text = textwrap.dedent(courier.__doc__ or "")
    block = text[text.index("    location /reports/") : text.index("\n    }\n") + len("\n    }\n")]
    return block.replace("/srv/fleet", str(reports))


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """Where reports arrive."""
    folder = tmp_path / "fleet"
    (folder / "reports").mkdir(parents=True)
    (folder / "incoming").mkdir()
    return folder


def gathered(own: Works, box: Path) -> tuple[Gathered, Status]:
    found = FleetFile(own.folder / "fleet.json").gather([box / "reports"], now=NOW)
    on = own.publisher.repository.channels()["stable"]
    return found, status(on, found.fleet.members, now=NOW)


def test_a_rollout_goes_on_by_what_devices_say_to_nginx(tmp_path: Path, box: Path) -> None:
    own = works(tmp_path / "works")
    own.publish(1)
    devices = [own.device(f"till-{i}") for i in range(8)]
    file = FleetFile(own.folder / "fleet.json")
    for device in devices:
        file.enrol(device.identity.enrolment(), now=NOW)
    with nginx(own.repo, tmp_path / "nginx", more=documented(box)) as url:

        def look(*, at: float) -> None:
            for device in devices:
                device.now = at
                device.sync(url, report=f"{url}/reports")

        look(at=NOW)
        found, state = gathered(own, box)
        assert found.findings == {"new": 8}
        assert state.counts == {"installed": 8}

        own.publish(2, since=[1])
        half = own.publisher.set("stable", Wish(ramp=(RampStep(0, 50),), new_salt=True))
        look(at=NOW + 1)
        found, state = gathered(own, box)
        first = state.counts["installed"]
        assert first == EARLY
        assert state.counts["later"] == 8 - first
        assert {device.active for device in devices} == {"tiny-llama-1.0", "tiny-llama-2.0"}

        move = next_move(state, LIMITS, (50, 100))
        assert (move.kind, move.percent) == ("widen", 100)
        wider = changed("stable", half, Wish(ramp=widened(half, 100, now=NOW + 2)), now=NOW + 2, salt=half.salt)
        own.publisher.publish(Change(channels=(wider,)))
        look(at=NOW + 3)
        found, state = gathered(own, box)
        assert found.ignored == 0
        assert {device.active for device in devices} == {"tiny-llama-2.0"}
        on = own.publisher.repository.channels()["stable"]
        assert status(on, found.fleet.members, now=NOW + 3).counts == {"installed": 8}


def test_a_release_that_fails_on_devices_is_paused_and_nobody_else_begins(tmp_path: Path, box: Path) -> None:
    own = works(tmp_path / "works")
    own.publish(1)
    devices = [own.device(f"till-{i}") for i in range(6)]
    file = FleetFile(own.folder / "fleet.json")
    for device in devices:
        file.enrol(device.identity.enrolment(), now=NOW)
        device.sync(own.repo, report=str(box / "reports"))
    own.publish(2, since=[1])
    for device in devices[:4]:
        device.trial.fails = {"tiny-llama-2.0": "it gives other answers"}
        outcome = device.sync(own.repo, report=str(box / "reports"))
        assert outcome.ending == "refused"
        assert device.active == "tiny-llama-1.0"
    _, state = gathered(own, box)
    assert state.counts == {"failed": 4, "waiting": 2}
    assert list(state.reasons) == ["it gives other answers"]
    assert next_move(state, LIMITS, (100,)).kind == "stop"
    own.publisher.set("stable", Wish(pause=True))
    for device in devices[4:]:
        assert device.sync(own.repo).ending == "held"
        assert device.active == "tiny-llama-1.0"


def test_nginx_takes_reports_and_nothing_else(tmp_path: Path, box: Path) -> None:
    (tmp_path / "empty").mkdir()
    with nginx(tmp_path / "empty", tmp_path / "nginx", more=documented(box)) as url:
        courier.deliver(b'{"a": 1}', "till-7", f"{url}/reports")
        courier.deliver(b'{"a": 2}', "till-7", f"{url}/reports/")
        assert (box / "reports" / "till-7.json").read_bytes() == b'{"a": 2}'
        pool = urllib3.PoolManager()
        statuses = {
            method: pool.request(method, f"{url}/reports/till-7.json", retries=False).status
            for method in ("GET", "DELETE", "POST")
        }
        assert all(status in (403, 405) for status in statuses.values()), statuses
        big = pool.request("PUT", f"{url}/reports/x.json", body=b"x" * (MAX_REPORT_BYTES + 1), retries=False)
        assert big.status == 413
        pool.clear()
    assert [path.name for path in (box / "reports").iterdir()] == ["till-7.json"]

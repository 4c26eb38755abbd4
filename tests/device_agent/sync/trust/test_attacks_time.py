"""A7 and A14: old news, and clocks that lie (research/sync.md, section 4)."""

import hashlib
from pathlib import Path

import pytest

from edgekit.errors import Untrusted
from tests.device_agent.sync.trust.devices import Device, published
from tests.repositories import DAY, ISSUED, NOW, Key

YEAR_2036 = 2_090_000_000.0


# --- A7 ---------------------------------------------------------------------------------------


def test_a07_a_repository_that_stands_still_is_stale_after_its_timestamp(device: Device) -> None:
    fresh = device.last()
    assert fresh is not None
    assert fresh.fresh
    device.now += 31 * DAY
    for view in (device.last(), device.refresh(), device.last()):
        assert view is not None
        assert not view.fresh
        assert view.releases == fresh.releases
        assert view.channels == fresh.channels
    device.repository.now = device.now
    device.repository.refresh()
    assert device.refresh().fresh


@pytest.mark.parametrize(
    ("role", "days"),
    [("timestamp", 30), ("snapshot", 30), ("rollout", 90), ("releases", 365), ("targets", 365), ("root", 730)],
)
def test_a07_each_role_goes_out_of_date_to_the_second(device: Device, role: str, days: int) -> None:
    repository = device.repository
    for other in ("timestamp", "snapshot", "rollout", "releases", "targets", "root"):
        if other != role:
            repository.role(other).expires = repository.until(3_000)
    repository.root.version += 1
    repository.put("root")
    for name in ("targets", "releases", "rollout"):
        repository.role(name).version += 1
        repository.put(name)
        repository._list(name)
    repository.snapshot.version += 1
    repository.timestamp.version += 1
    _seal_as_it_is(device)
    device.now = NOW + days * DAY - 1
    assert device.refresh().fresh
    device.now += 1
    assert not device.refresh().fresh
    view = device.last()
    assert view is not None
    assert not view.fresh
    assert view.expires == NOW + days * DAY


def _seal_as_it_is(device: Device) -> None:
    repository = device.repository
    raw = repository.put("snapshot")
    meta = repository.timestamp.snapshot_meta
    meta.version, meta.length = repository.snapshot.version, len(raw)
    meta.hashes = {"sha256": hashlib.sha256(raw).hexdigest()}
    repository.put("timestamp")


def test_a07_metadata_that_is_new_here_but_out_of_date_is_taken_as_such(tmp_path: Path) -> None:
    """A stick that was long on its way: its channel may say that this is enough."""
    device = Device(tmp_path, published(), now=NOW + 40 * DAY)
    view = device.refresh()
    assert not view.fresh
    assert set(view.releases) == {"tiny-1.0", "tiny-2.0"}


def test_a07_out_of_date_is_no_excuse_for_anything_else(device: Device) -> None:
    device.now += 40 * DAY
    device.repository.keys["releases"] = [Key("stranger")]
    device.repository.publish()
    device.refuses(Untrusted, progress=True)


# --- A14 --------------------------------------------------------------------------------------


def test_a14_a_clock_at_1970_counts_from_what_was_signed_last(device: Device) -> None:
    device.now = 0.0
    for view in (device.last(), device.refresh()):
        assert view is not None
        assert view.now == NOW
        assert not view.clock_reliable
        assert view.fresh


def test_a14_a_clock_at_1970_revives_nothing(device: Device) -> None:
    """Expired metadata stays so, since a later time was seen."""
    device.now = NOW + 20 * DAY
    device.refresh()
    device.repository.now = NOW + 29 * DAY
    device.repository.timestamp.expires = device.repository.until(1)
    device.now = NOW + 29 * DAY
    device.repository.publish()
    device.refresh()
    device.now = 0.0
    view = device.refresh()
    assert view.now >= NOW + 29 * DAY - DAY


def test_a14_the_last_time_that_fresh_metadata_bore_out_is_kept(device: Device) -> None:
    device.now = NOW + 20 * DAY
    device.refresh()
    device.now = 0.0
    view = device.refresh()
    assert NOW + 19 * DAY < view.now <= NOW + 20 * DAY
    assert not view.clock_reliable


def test_a14_a_program_knows_that_it_is_not_before_it_was_built(tmp_path: Path) -> None:
    device = Device(tmp_path, published(), now=0.0)
    device.built = NOW + 10 * DAY
    view = device.refresh()
    assert view.now == NOW + 10 * DAY
    assert not view.clock_reliable


def test_a14_a_clock_at_2036_stops_installs_and_nothing_else_and_is_forgotten(device: Device) -> None:
    good = device.last()
    assert good is not None
    device.now = YEAR_2036
    for view in (device.last(), device.refresh(), device.last()):
        assert view is not None
        assert not view.fresh
        assert view.releases == good.releases
    device.now = NOW
    assert device.last() == good
    assert device.refresh() == good


def test_a14_a_clock_that_jumps_back_in_the_middle_of_a_refresh(device: Device) -> None:
    device.repository.now = NOW + DAY
    device.repository.publish()
    read = device.source.answer

    def jump(path: str) -> bytes | None:
        device.now = 0.0
        return read(path)

    device.source.answer = jump
    view = device.refresh()
    assert view.fresh
    assert view.now == NOW + DAY


@pytest.mark.parametrize("issued", ["tomorrow", None, -1, True, 1.5, 1 << 60, [], {}])
def test_a14_a_timestamp_that_says_no_time_is_as_good(device: Device, issued: object) -> None:
    device.repository.timestamp.unrecognized_fields[ISSUED] = issued
    device.repository.timestamp.version += 1
    if issued == 1.5:
        device.repository.timestamp.unrecognized_fields[ISSUED] = "1.5"  # canonical JSON has no fractions
    device.repository.put("timestamp")
    view = device.refresh()
    assert view.fresh
    assert view.now == NOW


def test_a14_a_thief_of_the_timestamp_key_cannot_stop_time_for_good(device: Device) -> None:
    """He signs one of the year 2036: nothing is fresh any more, until its key is another one."""
    honest = device.repository.copy()
    repository = device.repository
    repository.timestamp.version += 1
    repository.timestamp.expires = repository.until(9_000)
    repository.timestamp.unrecognized_fields[ISSUED] = int(YEAR_2036)
    repository.put("timestamp")
    stopped = device.refresh()
    assert not stopped.fresh
    assert stopped.now == YEAR_2036
    honest.rotate("timestamp", Key("timestamp anew"), publish=False)
    honest.publish()
    view = device.refresh(honest.source())
    assert view.fresh
    assert view.now == NOW


def test_a14_a_timestamp_is_not_issued_after_it_expires(device: Device) -> None:
    device.repository.timestamp.unrecognized_fields[ISSUED] = int(YEAR_2036)
    device.repository.timestamp.version += 1
    device.repository.put("timestamp")
    view = device.refresh()
    assert view.now == NOW + 30 * DAY - 1
    assert view.fresh

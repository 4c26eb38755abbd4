"""Whom the build machine believes."""

import stat
import sys
from pathlib import Path

import msgspec
import pytest

from edgekit.errors import PublishError
from edgekit.release.reports import MAX_REPORT_BYTES, Enrolment, sealed
from export.publish.devices import FORMAT, Fleet, FleetFile, default_path, enrolled, gathered, speakers
from tests.export.publish.fleets import NOW, envelope, fleet, report, secret

FLEET = fleet(["a", "b"])


def test_a_report_is_counted_once_however_often_it_lies_there() -> None:
    raw = envelope(report("a"))
    first = gathered(FLEET, [raw, raw], now=NOW)
    assert first.findings == {"new": 1, "known": 1}
    again = gathered(first.fleet, [raw], now=NOW + 99)
    assert again.findings == {"known": 1}
    assert again.fleet == first.fleet  # also when it was first seen: that is what silence is counted from
    member = again.fleet.member("a")
    assert member is not None
    assert member.seen_at == NOW


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_f06_the_newest_counts_in_whatever_order_they_came(order: tuple[int, ...]) -> None:
    found = gathered(FLEET, [envelope(report("a", counter=counter)) for counter in order], now=NOW)
    member = found.fleet.member("a")
    assert member is not None
    assert member.report == report("a", counter=3)


def test_f06_forged_replayed_unknown_and_damaged_reports_are_ignored_and_counted() -> None:
    first = gathered(FLEET, [envelope(report("a", counter=5, active="tiny-1.0"))], now=NOW)
    heap = [
        envelope(report("a", counter=4, active="tiny-2.0")),
        envelope(report("a", counter=5, active="tiny-2.0")),
        sealed(report("a", counter=9, active="tiny-2.0"), secret("b")),
        envelope(report("stranger", counter=9)),
        b"",
        b"x" * (MAX_REPORT_BYTES + 1),
    ]
    found = gathered(first.fleet, heap, now=NOW)
    assert found.fleet == first.fleet
    assert found.findings == {"replayed": 2, "forged": 1, "unknown": 1, "damaged": 2}
    assert found.ignored == 6


def test_a_device_that_is_enrolled_anew_begins_anew() -> None:
    before = gathered(FLEET, [envelope(report("a", counter=5))], now=NOW).fleet
    other = Enrolment(format=1, device="a", secret="ab" * 32)
    after = enrolled(before, other, now=NOW)
    assert gathered(after, [envelope(report("a", counter=6))], now=NOW).findings == {"forged": 1}
    assert gathered(after, [sealed(report("a", counter=1), b"\xab" * 32)], now=NOW).findings == {"new": 1}


def test_a_device_that_is_enrolled_with_the_same_secret_keeps_its_reports() -> None:
    before = gathered(FLEET, [envelope(report("a", counter=5))], now=NOW).fleet
    same = Enrolment(format=1, device="a", secret=secret("a").hex(), labels={"site": "oslo"})
    after = enrolled(before, same, now=NOW + 9)
    assert gathered(after, [envelope(report("a", counter=5))], now=NOW).findings == {"known": 1}


def test_strangers_are_taken_at_their_word_and_members_are_not() -> None:
    known = gathered(FLEET, [envelope(report("a", counter=5)), envelope(report("b", counter=5))], now=NOW).fleet
    heap = [envelope(report("stranger", counter=counter)) for counter in (2, 7, 3)]
    heap += [envelope(report("a", counter=2)), sealed(report("b", counter=9), secret("a")), b"{"]
    assert speakers(heap, known) == (report("a", counter=5), report("stranger", counter=7))


# --- the file ---


def box(folder: Path, *files: tuple[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files:
        (folder / name).write_bytes(raw)
    return folder


def test_reports_of_several_folders_and_of_a_stick_are_remembered(tmp_path: Path) -> None:
    file = FleetFile(tmp_path / "fleet.json")
    for device in ("a", "b"):
        file.enrol(Enrolment(format=1, device=device, secret=secret(device).hex()), now=NOW)
    put = box(tmp_path / "put", ("a.json", envelope(report("a"))), ("empty.json", b""), ("notes.txt", b"?"))
    box(tmp_path / "stick" / "returns", ("b.json", envelope(report("b"))))
    found = file.gather([put, tmp_path / "stick"], now=NOW)
    assert found.findings == {"new": 2, "damaged": 1}
    assert file.read() == found.fleet


def test_links_and_half_written_files_are_passed_over(tmp_path: Path) -> None:
    secret_file = tmp_path / "elsewhere.json"
    secret_file.write_bytes(envelope(report("a")))
    put = box(tmp_path / "put", (".a.json.x1.json", b"half"))
    (put / "a.json").symlink_to(secret_file)
    (put / "folder.json").mkdir()
    file = FleetFile(tmp_path / "fleet.json")
    assert file.gather([put], now=NOW).findings == {}
    assert not file.path.exists()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="nowhere"):
        FleetFile(tmp_path / "fleet.json").gather([tmp_path / "nowhere"], now=NOW)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_the_file_is_for_its_owner_and_beside_the_repository(tmp_path: Path) -> None:
    path = default_path(tmp_path / "repo")
    assert path == tmp_path / "repo.devices.json"
    FleetFile(path).enrol(Enrolment(format=1, device="a", secret="ab" * 32), now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"format": 2}', b'{"format": 1, "members": 3}'])
def test_a_damaged_file_is_said_and_left_as_it_is(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "fleet.json"
    path.write_bytes(raw)
    with pytest.raises(PublishError, match=r"fleet\.json"):
        FleetFile(path).enrol(Enrolment(format=1, device="a", secret="ab" * 32), now=NOW)
    assert path.read_bytes() == raw


def test_a_device_can_be_forgotten(tmp_path: Path) -> None:
    file = FleetFile(tmp_path / "fleet.json")
    file.enrol(Enrolment(format=1, device="a", secret="ab" * 32), now=NOW)
    file.forget("a")
    assert file.read() == Fleet(format=FORMAT)
    with pytest.raises(PublishError, match="no device"):
        file.forget("a")


def test_fifty_thousand_devices_are_gathered_in_one_pass() -> None:
    """Work that grew with the square of the fleet would be seen here: 2.5 billion steps."""
    many = Fleet(
        format=FORMAT,
        members=tuple(
            msgspec.structs.replace(FLEET.members[0], device=f"d{i:05}", secret=secret(f"d{i:05}").hex())
            for i in range(50_000)
        ),
    )
    found = gathered(many, [envelope(report(f"d{i:05}")) for i in range(0, 50_000, 50)], now=NOW)
    assert found.findings == {"new": 1000}
    assert len(found.fleet.members) == 50_000

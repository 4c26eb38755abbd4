"""Sticks and tar files: from the build machine to devices that have no network, and their reports back."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.sync import content
from device_agent.sync.content.plan import first_way
from device_agent.sync.transport.folder import FolderSource
from edgekit.errors import NotInRepository, Unreachable, Untrusted
from edgekit.release.names import pack_path
from export.publish.bundles import Group, groups_of, needed
from export.publish.channels import Wish
from export.publish.devices import FORMAT, Fleet, enrolled, envelopes_in, gathered, speakers
from export.publish.repository import Change
from tests.contents import Never, make, make_delta, noise
from tests.end_to_end.offline import MB, Device, Works, works
from tests.export.publish.publishers import NOW


def installed(device: Device, version: int) -> bool:
    """Whether a version serves, whole."""
    assert device.active == f"tiny-llama-{version}.0"
    return device.ballast()[0] == version


@pytest.fixture
def own(tmp_path: Path) -> Works:
    made = works(tmp_path)
    made.publish(1)
    return made


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "packs").rglob("*.pack"))


# --- G1 ---


class Stick:
    """Counts what is read of a stick, and is pulled after so many pieces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1 << 30
        self.read_bytes = 0
        stream = FolderSource.stream

        def read(source: FolderSource, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
            for piece in stream(source, path, start=start, length=length, size=size):
                if self.left <= 0:
                    raise Unreachable("the stick is gone")
                self.left -= 1
                self.read_bytes += len(piece)
                yield piece

        monkeypatch.setattr(FolderSource, "stream", read)


def test_g01_a_stick_that_is_pulled_at_every_piece_is_gone_on_with(own: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    usb, device = own.stick("usb"), own.device("till")
    stick = Stick(monkeypatch)
    cuts = 0
    while True:
        stick.left = 1  # the next one does not come any more
        outcome = device.sync(usb)
        if outcome.ending == "installed":
            break
        cuts += 1
        assert (outcome.ending, outcome.exit_code) == ("failed", Unreachable.exit_code)
        assert device.active is None
        assert cuts < 1000
    assert cuts > 5
    assert installed(device, 1)
    # What a cut costs at most: the chunk that it fell into, and a chunk here has 256 kB or less.
    assert stick.read_bytes <= bytes_of(usb) + cuts * (256 << 10)


def test_g01_a_stick_that_is_pulled_leaves_what_runs_as_it_is(own: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    device = own.device("till")
    device.sync(own.stick("usb"))
    own.publish(2)
    usb = own.stick("usb")
    stick = Stick(monkeypatch)
    for left in (0, 1):
        stick.left = left
        assert device.sync(usb).ending == "failed"
        assert installed(device, 1)
    shutil.rmtree(usb)
    assert device.sync(usb).exit_code == Unreachable.exit_code
    assert installed(device, 1)


# --- G2 ---


def test_g02_a_bundle_lives_on_a_stick_without_links_and_without_exact_times(
    own: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    usb = own.stick("usb")
    for path in usb.rglob("*"):
        os.utime(path, (1_700_000_002, 1_700_000_002))  # FAT counts in steps of two seconds
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "symlink", no_links)
    device = own.device("till")
    assert device.sync(usb).ending == "installed"
    own.publish(2, since=[1])
    assert device.sync(own.stick("usb", 1)).ending == "installed"
    assert installed(device, 2)


# --- G3 ---


def test_g03_an_older_stick_changes_nothing_that_is_trusted_and_its_packs_are_used(own: Works) -> None:
    device, old = own.device("till"), own.stick("usb")
    own.publisher.publish(Change())
    device.passes(own.repo).check(Never())  # it has heard of the newer metadata, and fetched nothing
    before = device.view()
    assert before is not None
    outcome = device.sync(old)
    assert (outcome.ending, outcome.exit_code) == ("installed", 0)
    assert installed(device, 1)
    after = device.view()
    assert after is not None
    assert after.timestamp_version == before.timestamp_version


def test_g03_an_older_stick_does_not_bring_back_what_is_no_longer_listed(own: Works) -> None:
    own.publish(2)
    device, old = own.device("till"), own.stick("usb")
    own.publisher.set("stable", Wish(release=own.releases[1].id))
    own.publisher.set("stable", Wish(forget_previous=True))
    own.publisher.publish(Change(withdraw=frozenset({own.releases[2].id})))
    device.passes(own.repo).check(Never())
    assert device.sync(old).release == own.releases[1].id  # whose bytes happen to be on it too
    assert installed(device, 1)


def test_g03_a_newer_stick_is_followed(own: Works) -> None:
    device = own.device("till")
    device.sync(own.repo)
    own.publish(2)
    assert device.sync(own.stick("usb")).ending == "installed"
    assert installed(device, 2)


def test_g03_a_stick_that_lacks_a_pack_is_said_and_the_next_one_completes_it(own: Works) -> None:
    device, usb = own.device("till"), own.stick("usb")
    packs = sorted((usb / "packs").rglob("*.pack"))
    packs[0].unlink()
    outcome = device.sync(usb)
    assert (outcome.ending, outcome.exit_code) == ("failed", NotInRepository.exit_code)
    assert device.active is None
    assert device.sync(own.stick("second")).ending == "installed"
    assert installed(device, 1)


def test_g03_a_stick_of_another_fleet_is_not_believed(own: Works, tmp_path: Path) -> None:
    other = works(tmp_path / "elsewhere")
    other.publish(7)
    usb = other.stick("usb")
    device = own.device("till")
    outcome = device.sync(usb)
    assert (outcome.ending, outcome.exit_code) == ("refused", Untrusted.exit_code)
    assert device.active is None
    assert device.view() is None
    assert device.sync(own.stick("usb")).ending == "installed"
    assert (device.sync(usb).exit_code, installed(device, 1)) == (Untrusted.exit_code, True)


def test_g03_a_stick_is_believed_as_long_as_its_metadata_was_signed_for(own: Works) -> None:
    own.publisher.publish(Change(days=200))
    usb, device = own.stick("usb"), own.device("till")
    device.now = NOW + 199 * 86_400
    assert device.sync(usb).ending == "installed"
    own.publish(2)
    other = own.stick("other")
    device.now = NOW + 201 * 86_400
    outcome = device.sync(other)
    assert (outcome.ending, outcome.exit_code) == ("refused", Untrusted.exit_code)
    assert installed(device, 1)


def test_g03_where_the_channel_says_so_a_stick_that_is_out_of_date_still_counts(own: Works) -> None:
    own.publisher.set("stable", Wish(freshness="warn"))
    usb, device = own.stick("usb"), own.device("till")
    device.now = NOW + 300 * 86_400
    assert device.sync(usb).ending == "installed"


# --- G4 ---


def test_g04_a_tar_file_serves_as_well(own: Works) -> None:
    own.publish(2, since=[1])
    device = own.device("till")
    full, small = own.tar("full.tar"), own.tar("small.tar", 1)
    assert device.sync(full).ending == "installed"
    assert installed(device, 2)
    other = own.device("other")
    assert other.sync(small).exit_code == NotInRepository.exit_code


@pytest.mark.parametrize("kept", [0, 1, 1000, 100_000, -2_000_000, -12_000])
def test_g04_a_tar_file_that_was_cut_off_brings_nothing(own: Works, kept: int) -> None:
    """Its last file says what is new, so that without its end (and the padding of tars) nobody hears of the rest."""
    device, file = own.device("till"), own.tar("x.tar")
    with file.open("r+b") as stream:
        stream.truncate(kept if kept >= 0 else file.stat().st_size + kept)
    assert device.sync(file).exit_code != 0
    assert device.active is None


# --- G5 ---


def test_g05_a_stick_for_those_with_a_base_says_to_others_which_base_is_missing(own: Works) -> None:
    own.publish(2, since=[1])
    usb = own.stick("usb", 1)
    assert bytes_of(usb) < MB / 2
    device = own.device("till")
    outcome = device.sync(usb)
    assert (outcome.ending, outcome.exit_code) == ("failed", NotInRepository.exit_code)
    assert own.releases[1].id in outcome.reason
    assert device.active is None


# --- G6 ---


def test_g06_one_stick_for_three_devices_at_three_versions(own: Works) -> None:
    own.publish(2, since=[1])
    devices = {version: own.device(f"till-{version}") for version in (0, 1, 2)}
    for version in (1, 2):
        devices[version].sync(own.stick(f"usb-{version}"))
        if version == 1:
            devices[2].sync(own.stick("usb-1"))
    own.publisher.set("stable", Wish(release=own.releases[1].id))
    del devices[1]
    devices[1] = own.device("till-one")
    devices[1].sync(own.stick("only-1"))
    assert [devices[i].active for i in (0, 1, 2)] == [None, own.releases[1].id, own.releases[2].id]
    own.publish(3, since=[1, 2])
    groups = [Group("a", frozenset({own.releases[i].id})) for i in (1, 2)]
    small = own.stick("for-two", groups=groups)
    usb = own.stick("for-three", groups=[*groups, Group("new", frozenset())])
    moved = {}
    for version, device in devices.items():
        outcome = device.sync(usb)
        assert outcome.ending == "installed"
        assert installed(device, 3)
        moved[version] = outcome.moved_bytes
    assert moved[1] < moved[0] / 5
    assert moved[2] < moved[0] / 5
    assert bytes_of(small) < bytes_of(usb) / 5


# --- what devices bring back ---


def test_devices_leave_reports_on_the_stick_and_the_next_bundle_is_for_exactly_them(own: Works) -> None:
    own.publish(2, since=[1])
    own.publisher.set("stable", Wish(release=own.releases[1].id))
    one, new = own.device("till-1"), own.device("till-2")
    one.sync(own.stick("usb"))
    usb = own.stick("usb")
    (usb / "metadata" / "timestamp.json").rename(usb / "moved")
    new.sync(usb)  # it gets nothing from this stick, and says so
    (usb / "moved").rename(usb / "metadata" / "timestamp.json")
    fleet = Fleet(format=FORMAT)
    for device in (one, new):
        fleet = enrolled(fleet, device.identity.enrolment(), now=NOW)
    found = gathered(fleet, envelopes_in([usb]), now=NOW)
    assert found.findings == {"new": 2}
    reports = speakers(envelopes_in([usb]), found.fleet)
    assert [(report.device, report.have) for report in reports] == [("till-1", (own.releases[1].id,)), ("till-2", ())]
    own.publish(3, since=[1, 2])
    exact = own.stick("exact", groups=groups_of([reports[0]], []))
    assert bytes_of(exact) < MB / 2
    assert one.sync(exact).ending == "installed"
    assert new.sync(exact).ending == "failed"
    assert new.sync(own.stick("both", groups=groups_of(reports, []))).ending == "installed"
    assert installed(one, 3)
    assert installed(new, 3)


# --- both sides agree about what is needed ---


@st.composite
def _changes(draw: st.DrawFn) -> tuple[int, int, list[int], list[int]]:
    chunks = draw(st.integers(1, 6))
    places = st.lists(st.integers(0, chunks * 4096 - 1), max_size=4)
    return chunks, draw(st.integers(0, 3)), draw(places), draw(places)


@settings(max_examples=60)
@given(_changes())
def test_the_build_machine_copies_exactly_the_packs_that_the_device_will_ask_for(
    drawn: tuple[int, int, list[int], list[int]],
) -> None:
    chunks, seed, first, second = drawn
    base_data = noise(chunks * 4096, seed=seed)
    versions = [base_data, _flipped(base_data, first), _flipped(_flipped(base_data, first), second)]
    made = [make({"bundle.json": b"{}", "w": data}, version=str(i), grid=4096) for i, data in enumerate(versions)]
    deltas = [make_delta(made[i], made[2], grid=4096)[0] for i in (0, 1)]
    for have in ((), (0,), (1,), (0, 1)):
        need = needed(made[2].release, [made[i].release for i in have], [deltas[i] for i in have])
        here = content.Have.of(made[i].install_record(Path(str(i))) for i in have)
        plan = content.plan(made[2].release, here, [deltas[i] for i in have], holds="packs")
        pieces = [first_way(target) for target in plan.targets if target.local is None]
        assert {pack_path(pack.sha256) for pack in need.packs} == {piece.stored.path for piece in pieces}
        assert need.bytes == sum(piece.stored.length for piece in pieces)


def _flipped(data: bytes, places: list[int]) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 0x5A
    return bytes(changed)

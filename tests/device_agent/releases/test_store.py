"""The record and the releases on disk: what a torn write, a lost folder and a foreign file do to them."""

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from device_agent.releases.records import Line, Ref, State
from device_agent.releases.store import MANIFEST_FILE, Store, missing
from edgekit.errors import CorruptRelease, StorageFailed
from tests.releases import CHANNEL, install, put, ref_of, release_of, rot, wreck

FILES = {"bundle.json": b"{}", "weights": b"w" * 100}


def line(active: Ref, **fields: Any) -> State:
    return State(lines=(Line(channel=CHANNEL, active=active, **fields),))


def slots(store: Store) -> list[Path]:
    return [store.folder / f"state.{number}" for number in range(2)]


# --- the record -------------------------------------------------------------------------------


def test_a_device_that_was_never_synced_has_nothing_and_gets_no_folders(store: Store, tmp_path: Path) -> None:
    assert store.state() == State()
    assert (store.installed(), store.serving()) == ((), ())
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_read_by_another_process(store: Store, refs: tuple[Ref, Ref], tmp_path: Path) -> None:
    _, active = refs
    other = Store(tmp_path / "home")
    assert other.state() == store.state()
    other.write(line(active))
    assert store.state() == line(active)
    assert store.seen()[1] == other.seen()[1] > 1


def test_changes_of_many_threads_and_stores_are_all_kept(store: Store, refs: tuple[Ref, Ref], tmp_path: Path) -> None:
    def work(number: int) -> None:
        mine = Store(tmp_path / "home")
        for turn in range(5):
            added = Line(channel=f"c{number}-{turn}", active=refs[0])
            mine.change(lambda state, added=added: state.with_line(added))  # type: ignore[misc]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.state().lines) == 1 + 4 * 5


@pytest.mark.usefixtures("refs")
def test_an_event_that_is_refused_changes_nothing(store: Store) -> None:
    def refuse(_: State) -> State:
        raise CorruptRelease("no")

    before = store.seen()
    with pytest.raises(CorruptRelease):
        store.change(refuse)
    assert store.seen() == before


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\x00" * 300, b'{"seq":99,"sha256":"' + b"0" * 64 + b'","payload":"{}"}']
)
@pytest.mark.parametrize("slot", [0, 1])
def test_one_damaged_slot_costs_one_change_at_most(
    store: Store, refs: tuple[Ref, Ref], slot: int, damage: bytes
) -> None:
    previous, active = refs
    store.write(line(active))
    slots(store)[slot].write_bytes(damage)
    assert store.state() in (line(active), line(active, previous=previous))
    store.write(line(previous))
    assert store.state() == line(previous)


@pytest.mark.parametrize("how", ["damaged", "deleted", "of another version"])
def test_a_record_that_is_lost_is_made_anew_loudly(
    store: Store, refs: tuple[Ref, Ref], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    previous, active = refs
    other = install(store, "7", name="other")
    if how == "of another version":
        store._slots.write(b'{"lines": [], "fleet": 1}')
    for path in slots(store) if how != "of another version" else []:
        path.unlink() if how == "deleted" else path.write_bytes(b"torn")
    lines = store.state().lines
    assert [(each.active, each.previous) for each in lines] == [(other, None), (active, previous)]
    assert "is lost" in caplog.text
    assert {one.ref for one in store.serving()} == {active, other}
    store.collect()
    assert {one.ref for one in store.installed()} == {previous, active, other}
    assert store.seen()[1] > 0


@pytest.mark.usefixtures("refs")
def test_a_line_that_was_made_anew_ends_when_a_channel_brings_its_model(store: Store) -> None:
    for path in slots(store):
        path.unlink()
    newer = install(store, "3")
    store.change(lambda state: state.with_line(Line(channel=CHANNEL, active=newer)))
    assert [one.ref for one in store.serving()] == [newer]
    store.collect()
    assert store.state() == line(newer)
    assert [one.ref for one in store.installed()] == [newer]


def test_a_release_that_came_before_any_record_is_not_a_lost_record(store: Store) -> None:
    install(store, "1")
    assert store.state() == State()
    assert store.serving() == ()


def test_a_disk_that_cannot_be_written_is_read_and_served(
    refs: tuple[Ref, Ref], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def read_only(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *rest, **more)

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(Path, "mkdir", refused)
    again = Store(tmp_path / "home")
    assert [one.ref for one in again.serving()] == [refs[1]]
    with again.lease(refs[1]):
        pass
    with pytest.raises(StorageFailed):
        again.write(State())


# --- releases ---------------------------------------------------------------------------------


def test_a_release_is_read_only_and_carries_its_signed_manifest(store: Store) -> None:
    ref = install(store, "1")
    (one,) = store.installed()
    assert one.ref == ref
    assert one.folder == store.folder / "releases" / ref.folder
    assert (one.folder / MANIFEST_FILE).read_bytes() == one.release.to_bytes()
    files = [path for path in one.folder.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o444}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (one.folder, one.folder / "text")} == {0o555}
    assert not list((store.folder / "staging").iterdir())


def test_what_was_not_sealed_or_is_another_release_gets_no_place(store: Store) -> None:
    release = release_of("tiny", "1", FILES, sequence=1)
    ref = put(store, release, FILES)
    sealed = store.staging(ref) / MANIFEST_FILE
    raw = sealed.read_bytes()
    for damage in (None, raw[:-10], raw.replace(b'"sequence":1', b'"sequence":2'), b"[" * 100_000):
        sealed.unlink() if damage is None else sealed.write_bytes(damage)
        with pytest.raises(CorruptRelease):
            store.admit(ref)
        assert not list((store.folder / "releases").iterdir())
    sealed.write_bytes(raw)
    assert store.admit(ref).ref == ref


def test_a_release_keeps_its_place_when_it_is_admitted_again(store: Store) -> None:
    ref = install(store, "1")
    store.staging(ref)
    assert store.admit(ref) == store.find(ref)


@pytest.mark.parametrize(
    "how", ["deleted", "shorter", "longer", "a link", "a folder", "no manifest", "another manifest"]
)
def test_a_release_that_is_not_whole_is_none(store: Store, refs: tuple[Ref, Ref], how: str, tmp_path: Path) -> None:
    previous, active = refs
    found = store.find(active)
    assert found is not None
    path = found.folder / ("weights" if "manifest" not in how else MANIFEST_FILE)
    with store.repairing(found):
        data = path.read_bytes()
        path.unlink()
        if how in ("shorter", "longer"):
            path.write_bytes(data[:-1] if how == "shorter" else data + b"\0")
        elif how == "a link":
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        elif how == "a folder":
            path.mkdir()
        elif how == "another manifest":
            path.write_bytes(release_of("tiny", "9", FILES, sequence=9).to_bytes())
    assert [one.ref for one in store.installed()] == [previous]
    assert [one.ref for one in store.serving()] == [previous], "the one before serves"


@pytest.mark.usefixtures("refs")
def test_an_error_that_may_pass_is_not_taken_for_a_lost_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Path.lstat

    def no_handles(path: Path) -> os.stat_result:
        if path.name == "weights":
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        return looked(path)

    monkeypatch.setattr(Path, "lstat", no_handles)
    with pytest.raises(StorageFailed):
        Store(tmp_path / "home").installed()


def test_a_flipped_bit_is_not_seen_by_a_look_at_sizes(store: Store, refs: tuple[Ref, Ref]) -> None:
    found = store.find(refs[1])
    assert found is not None
    rot(found.folder / "weights")
    assert missing(found) == ()


def test_what_serves_is_the_trial_once_it_has_passed_and_the_active_one_before(
    store: Store, refs: tuple[Ref, Ref]
) -> None:
    previous, active = refs
    trial = install(store, "3")
    for soaking, expected in ((False, active), (True, trial)):
        store.write(line(active, previous=previous, trial=trial, tries_left=1, soaking=soaking))
        assert [one.ref for one in store.serving()] == [expected]


def test_a_release_in_doubt_gives_way_to_a_better_one(store: Store, refs: tuple[Ref, Ref]) -> None:
    previous, active = refs
    store.write(line(active, previous=previous))
    for doubted, expected in ((active, previous), (previous, active)):  # of two in doubt the active one serves
        store.doubt(doubted)
        assert [one.ref for one in store.serving()] == [expected]
    store.believe(previous)
    assert [one.ref for one in store.serving()] == [previous]


def test_two_channels_serve_two_releases_and_the_same_one_once(store: Store, refs: tuple[Ref, Ref]) -> None:
    previous, active = refs
    other = install(store, "7", name="other")
    for ref, expected in ((previous, [previous, active]), (active, [active]), (other, [other, active])):
        store.write(line(active).with_line(Line(channel="beta", active=ref)))
        assert [one.ref for one in store.serving()] == expected


def test_a_release_that_was_signed_anew_under_its_name_is_another_one(store: Store, refs: tuple[Ref, Ref]) -> None:
    files = {**FILES, "weights": b"others"}
    again = release_of("tiny", "2", files, sequence=5)
    store.admit(put(store, again, files))
    assert ref_of(again).id == refs[1].id
    assert len(store.installed()) == 3


def test_e6_a_disk_without_links_and_modes_is_good_enough(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("link", "symlink", "chmod"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(Path, "chmod", refused)
    first, second = install(store, "1"), install(store, "2")
    store.write(line(second))
    assert store.collect() > 0
    assert store.find(first) is None
    assert [one.ref for one in store.serving()] == [second]


@pytest.mark.usefixtures("refs")
def test_a_record_that_is_gone_while_its_releases_are_gone_too_is_a_new_one(store: Store) -> None:
    for one in store.installed():
        wreck(one.folder)
    for path in slots(store):
        path.unlink()
    assert store.state() == State()

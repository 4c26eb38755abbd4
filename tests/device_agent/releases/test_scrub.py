"""Bytes that rot on the disk are found, slowly, and by who has nothing else to do."""

import os
import threading
from pathlib import Path

import pytest

from device_agent.releases.records import Installed, Line, Ref
from device_agent.releases.scrub import AGE_S, RETRY_S, Damage, Scrub, damaged
from device_agent.releases.store import Store
from edgekit.errors import Busy
from tests.releases import install, rot

WAIT_S = 60.0
"""Only ever waited for when something is broken."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Patient:
    """A stop that notes how long it was asked to wait, and is set after so many pieces."""

    def __init__(self, after: int | None = None) -> None:
        self.waited: list[float] = []
        self._after = after

    def is_set(self) -> bool:
        return self._after is not None and len(self.waited) > self._after

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scrub(store: Store, refs: tuple[Ref, Ref], clock: Clock) -> Scrub:
    assert len(refs) == 2
    made = Scrub(store, lambda _: None, clock=clock)
    clock.now = 1e9
    return made


def ids(releases: tuple[Installed, ...]) -> list[str]:
    return [one.ref.id for one in releases]


def find(store: Store, ref: Ref) -> Installed:
    found = store.find(ref)
    assert found is not None
    return found


def round_at(scrub: Scrub, clock: Clock, store: Store) -> tuple[Damage, ...]:
    """A round of all that is due, whose notes are written at the clock's time."""
    found = scrub.round(scrub.due(), Patient())
    for note in (store.folder / "notes").iterdir():
        os.utime(note, (clock.now, clock.now))
    return found


def test_what_was_never_hashed_is_due_and_is_not_once_it_was(scrub: Scrub, clock: Clock, store: Store) -> None:
    install(store, "6")  # which no record keeps
    assert ids(scrub.due()) == ["tiny-1", "tiny-2"]
    assert round_at(scrub, clock, store) == ()
    assert scrub.due() == ()


@pytest.mark.parametrize("away_s", [AGE_S, -AGE_S])
def test_a_day_later_all_is_due_again_whatever_the_clock_did(
    scrub: Scrub, clock: Clock, store: Store, away_s: float
) -> None:
    round_at(scrub, clock, store)
    clock.now += away_s * 0.9
    assert scrub.due() == ()
    clock.now += away_s * 0.2
    assert ids(scrub.due()) == ["tiny-1", "tiny-2"]


def test_what_changed_comes_first(scrub: Scrub, clock: Clock, store: Store, refs: tuple[Ref, Ref]) -> None:
    round_at(scrub, clock, store)
    os.utime(find(store, refs[1]).folder / "weights", (1, 1))
    assert ids(scrub.due()) == ["tiny-2"]
    clock.now += AGE_S
    assert ids(scrub.due()) == ["tiny-2", "tiny-1"]


def test_what_could_not_be_loaded_comes_first_and_is_believed_again_if_it_is_right(
    scrub: Scrub, clock: Clock, store: Store, refs: tuple[Ref, Ref]
) -> None:
    round_at(scrub, clock, store)
    store.doubt(refs[1])
    assert ids(scrub.due()) == ["tiny-2"]
    assert round_at(scrub, clock, store) == ()
    assert store.doubts == set()
    store.doubt(refs[1])  # it cannot be loaded for another reason
    assert scrub.due() == ()
    clock.now += RETRY_S
    assert ids(scrub.due()) == ["tiny-2"]


def test_what_could_not_be_loaded_and_is_damaged_stays_in_doubt(
    scrub: Scrub, clock: Clock, store: Store, refs: tuple[Ref, Ref]
) -> None:
    rot(find(store, refs[1]).folder / "weights")
    store.doubt(refs[1])
    assert [one.installed.ref for one in round_at(scrub, clock, store)] == [refs[1]]
    assert store.doubts == {refs[1]}


def test_e9_a_flipped_bit_is_found_though_neither_size_nor_time_changed(
    scrub: Scrub, clock: Clock, store: Store, refs: tuple[Ref, Ref]
) -> None:
    path = find(store, refs[1]).folder / "weights"
    round_at(scrub, clock, store)
    before = path.stat()
    rot(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scrub.due() == ()
    clock.now += AGE_S
    assert [(one.installed.ref.id, one.paths) for one in round_at(scrub, clock, store)] == [("tiny-2", ("weights",))]


def test_what_is_damaged_is_due_again_after_a_while(
    scrub: Scrub, clock: Clock, store: Store, refs: tuple[Ref, Ref]
) -> None:
    rot(find(store, refs[1]).folder / "weights")
    assert len(round_at(scrub, clock, store)) == 1
    assert scrub.due() == ()
    clock.now += RETRY_S
    assert ids(scrub.due()) == ["tiny-2"]


@pytest.mark.parametrize("note", [b"", b"{", b"[" * 10_000, b'{"manifest":"%s","files":[]}' % (b"0" * 64)])
def test_a_note_that_cannot_be_read_costs_a_hash(
    scrub: Scrub, clock: Clock, store: Store, refs: tuple[Ref, Ref], note: bytes
) -> None:
    round_at(scrub, clock, store)
    (store.folder / "notes" / refs[0].folder).write_bytes(note)
    assert ids(scrub.due()) == ["tiny-1"]


@pytest.mark.usefixtures("refs")
def test_it_waits_after_each_piece_and_leaves_off_when_it_is_told(store: Store) -> None:
    large = find(store, install(store, "8", weights=b"w" * (5 << 20)))
    store.change(lambda state: state.with_line(Line(channel="large", active=large.ref)))
    scrub = Scrub(store, lambda _: None, bytes_per_s=1 << 20)
    patient = Patient()
    assert scrub.round((large,), patient) == ()
    assert sum(patient.waited) == pytest.approx(large.release.file_bytes / (1 << 20))
    assert max(patient.waited) <= 1.0
    stopped = Patient(after=2)
    rot(large.folder / "weights", at=(5 << 20) - 1)
    assert scrub.round((large,), stopped) == ()
    assert len(stopped.waited) == 3
    assert len(scrub.round((large,), Patient())) == 1


@pytest.mark.parametrize("how", ["gone", "longer", "shorter", "a link"])
def test_files_that_are_no_files_are_damage(store: Store, refs: tuple[Ref, Ref], how: str, tmp_path: Path) -> None:
    one = find(store, refs[1])
    with store.repairing(one):
        path = one.folder / "weights"
        data = path.read_bytes()
        path.unlink()
        if how == "a link":
            (tmp_path / "same").write_bytes(data)
            path.symlink_to(tmp_path / "same")
        elif how != "gone":
            path.write_bytes(data + b"!" if how == "longer" else data[:-1])
    assert damaged(one) == Damage(one, ("weights",))


def test_the_thread_tells_of_damage_and_ends_when_it_is_closed(store: Store, refs: tuple[Ref, Ref]) -> None:
    rot(find(store, refs[1]).folder / "weights")
    found, heard = list[Damage](), threading.Event()

    def hear(damage: Damage) -> None:
        found.append(damage)
        heard.set()
        raise RuntimeError("whoever listens is broken")

    scrub = Scrub(store, hear, wait_s=0.001)
    scrub.start()
    assert heard.wait(WAIT_S)
    scrub.close()
    assert [one.installed.ref for one in found] == [refs[1]]


def test_what_is_collected_while_it_is_hashed_is_not_damaged(store: Store, refs: tuple[Ref, Ref]) -> None:
    gone = find(store, install(store, "6"))
    store.collect()
    scrub = Scrub(store, lambda _: None)
    assert scrub.round((gone,), Patient()) == ()
    rot(find(store, refs[1]).folder / "weights")
    assert len(scrub.round(store.installed(), Patient())) == 1


def test_damage_that_nobody_has_time_for_is_looked_at_again_soon(store: Store, refs: tuple[Ref, Ref]) -> None:
    rot(find(store, refs[1]).folder / "weights")
    twice = threading.Barrier(2)

    def hear(_: Damage) -> None:
        twice.wait(WAIT_S)
        raise Busy("an update is under way")

    scrub = Scrub(store, hear, wait_s=0.001)
    scrub.start()
    twice.wait(WAIT_S)
    twice.wait(WAIT_S)
    twice.abort()
    scrub.close()


def test_closing_what_was_never_started_is_harmless(store: Store) -> None:
    Scrub(store, lambda _: None).close()

"""What a collection takes, and what it never does; leases, and processes that died with theirs."""

import contextlib
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_agent.releases.leases import Leases, Process, boot_id, started_at, this_process
from device_agent.releases.records import Line, Ref, State
from device_agent.releases.removing import remove
from device_agent.releases.scrub import damaged
from device_agent.releases.store import Store
from tests.imports import ROOT
from tests.releases import CHANNEL, install, put, ref_of, release_of

ME = Process(100, 5000, "b007")


def names(store: Store, folder: str) -> set[str]:
    return {path.name for path in (store.folder / folder).iterdir()}


def all_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_only_what_no_line_needs_goes_and_its_bytes_are_counted(store: Store, refs: tuple[Ref, Ref]) -> None:
    previous, active = refs
    trial, pinned, refused, old = (install(store, str(number)) for number in (3, 4, 5, 6))
    state = State(lines=(Line(channel=CHANNEL, active=active, previous=previous, trial=trial, tries_left=1),))
    store.write(state.with_line(Line(channel="beta", active=pinned, pin=pinned)))
    gone = sum(all_bytes(store.folder / "releases" / ref.folder) for ref in (refused, old))
    assert store.collect() == gone
    assert names(store, "releases") == {ref.folder for ref in (previous, active, trial, pinned)}
    assert names(store, "trash") == set()
    assert store.collect() == 0


@pytest.mark.usefixtures("refs")
def test_files_of_others_are_left_alone(store: Store, tmp_path: Path) -> None:
    for folder in ("releases", "staging", "leases"):
        (store.folder / folder / "notes of mine").mkdir()
        (store.folder / folder / "letter.txt").write_text("hello")
    (tmp_path / "home" / "models").mkdir()
    store.collect()
    for folder in ("releases", "staging", "leases"):
        assert {"notes of mine", "letter.txt"} <= names(store, folder)
    assert (tmp_path / "home" / "models").is_dir()


@pytest.mark.usefixtures("refs")
def test_links_in_what_is_deleted_are_not_followed(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("hello")
    old = install(store, "6")
    found = store.find(old)
    assert found is not None
    with store.repairing(found):
        (found.folder / "way-out").symlink_to(mine, target_is_directory=True)
        (found.folder / "text" / "letter.txt").symlink_to(mine / "letter.txt")
    store.collect()
    assert (mine / "letter.txt").read_text() == "hello"
    assert not found.folder.exists()


@pytest.mark.usefixtures("refs")
def test_bytes_that_another_release_has_too_are_not_freed(store: Store) -> None:
    old = install(store, "6")
    folder = store.folder / "releases" / old.folder
    whole = all_bytes(folder)
    os.link(folder / "weights", store.folder / "staging" / "another-name")
    assert store.collect() == whole - (store.folder / "staging" / "another-name").stat().st_size


@pytest.mark.usefixtures("refs")
def test_of_staged_releases_the_wanted_and_the_last_one_stay(store: Store) -> None:
    staged = []
    for number in range(4, 8):
        files = {"bundle.json": b"{}"}
        staged.append(put(store, release_of("tiny", str(number), files, sequence=number), files))
        os.utime(store.staging(staged[-1]), ns=(number, number))
    store.collect(wanted=[staged[1]])
    assert names(store, "staging") == {staged[1].folder, staged[-1].folder}
    store.collect()
    assert names(store, "staging") == {staged[-1].folder}


def test_a_wanted_release_that_is_whole_stays_before_the_record_names_it(store: Store, refs: tuple[Ref, Ref]) -> None:
    brought = install(store, "7")
    store.collect(wanted=[brought])
    assert {one.ref for one in store.installed()} == {*refs, brought}
    store.collect()
    assert {one.ref for one in store.installed()} == set(refs)


@pytest.mark.parametrize("cut", range(40))
def test_a_collection_that_is_cut_off_leaves_whole_releases_and_the_next_one_ends_it(
    store: Store, refs: tuple[Ref, Ref], cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(BaseException):
        pass

    for number in (5, 6):
        install(store, str(number))
    left = [cut]

    def counting(work: Any) -> Any:
        def run(*given: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Cut
            return work(*given, **more)

        return run

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "rename"), (Path, "unlink"), (Path, "rmdir"), (os, "fsync"), (Path, "chmod")):
            patch.setattr(owner, name, counting(getattr(owner, name)))
        with contextlib.suppress(Cut):
            store.collect()
    again = Store(store.folder.parent)
    assert all(damaged(one) is None for one in again.installed())
    assert set(refs) <= {one.ref for one in again.installed()}
    again.collect()
    assert {one.ref for one in again.installed()} == set(refs)
    assert names(again, "trash") == set()


# --- leases -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("refs")
def test_what_somebody_has_open_stays_until_it_is_closed(store: Store) -> None:
    old = install(store, "6")
    with store.lease(old):
        store.collect()
        assert store.find(old) is not None
        with Store(store.folder.parent).lease(old):
            pass
        store.collect()
        assert store.find(old) is not None, "another one's lease is not this one's"
    store.collect()
    assert store.find(old) is None
    assert names(store, "leases") == set()


@pytest.mark.usefixtures("refs")
def test_a_lease_of_another_process_counts_while_it_lives(store: Store) -> None:
    old = install(store, "6")
    program = (
        "import sys\nfrom pathlib import Path\nfrom device_agent.releases.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "one = next(one for one in store.installed() if one.ref.sequence == 6)\n"
        "store.hold(one.ref)\nprint('held', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(store.folder.parent)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        store.collect()
        assert store.find(old) is not None
        process.kill()
        process.wait()
    store.collect()
    assert store.find(old) is None
    assert names(store, "leases") == set()


@pytest.mark.parametrize(
    ("owner", "holds"),
    [
        (ME, True),
        (Process(ME.pid, ME.start + 1, ME.boot), False),
        (Process(ME.pid, ME.start, "b008"), False),
        (Process(101, ME.start, ME.boot), False),
    ],
    ids=["alive", "reused number", "before the restart", "dead"],
)
def test_e4_leases_of_processes_that_are_gone_are_stale(tmp_path: Path, owner: Process, holds: bool) -> None:
    Leases(tmp_path, me=lambda: owner).take("tiny-1.0123456789ab")
    leases = Leases(tmp_path, me=lambda: ME, started=lambda pid: ME.start if pid == ME.pid else None)
    assert leases.held() == ({"tiny-1.0123456789ab"} if holds else frozenset())
    assert len(list(tmp_path.iterdir())) == holds


def test_what_is_no_lease_is_left_alone(tmp_path: Path) -> None:
    for name in ("letter.txt", "1-2-3", "1-2-zz-000000-tiny", "-1-2-b0-000000-tiny", f"{'9' * 30}-2-b0-000000-tiny"):
        (tmp_path / name).write_text("")
    assert Leases(tmp_path).held() == frozenset()
    assert len(list(tmp_path.iterdir())) == 5


def test_a_process_knows_itself_whatever_it_is_called() -> None:
    me = this_process()
    assert me == this_process()
    assert me.start == started_at(os.getpid())
    assert started_at(2**31 - 1) is None
    assert boot_id() == me.boot


def test_the_longest_name_of_a_release_fits_into_a_lease(tmp_path: Path) -> None:
    ref = Ref(id="a" * 200, kind="model", sequence=1, sha256="0" * 64)
    leases = Leases(tmp_path, me=lambda: Process(4_194_304, 10**12, "0123abcd"), started=lambda _: 10**12)
    assert len(leases.take(ref.folder).name.encode()) <= 255
    assert leases.held() == {ref.folder}


@pytest.mark.skipif(
    sys.platform == "win32", reason="there a file that is open cannot be deleted, and stays in the trash"
)
@pytest.mark.usefixtures("refs")
def test_e5_a_session_that_has_the_old_files_mapped_goes_on_when_they_are_collected(store: Store) -> None:
    weights = os.urandom(1 << 16)
    old = install(store, "6", weights=weights)
    with (store.folder / "releases" / old.folder / "weights").open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    store.collect()
    assert store.find(old) is None
    assert mapped[:] == weights
    mapped.close()


@pytest.mark.usefixtures("refs")
def test_what_cannot_be_deleted_yet_stays_in_the_trash_and_goes_later(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def in_use(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "it is open")

    install(store, "6")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", in_use)
        store.collect()
    assert "cannot be deleted yet" in caplog.text
    assert len(names(store, "trash")) == 1
    Store(store.folder.parent).empty_trash()
    assert names(store, "trash") == set()


@pytest.mark.usefixtures("refs")
def test_what_cannot_be_moved_stays_where_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_use(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "it is open")

    old = install(store, "6")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", in_use)
        assert store.collect() == 0
    assert store.find(old) is not None


def test_deleting_counts_every_byte_once(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "b" / "c").mkdir(parents=True)
    (folder / "b" / "one").write_bytes(b"12345")
    (folder / "b" / "c" / "two").write_bytes(b"678")
    assert remove(folder) == 8
    assert not folder.exists()


def test_notes_of_releases_that_are_gone_go_too(store: Store, refs: tuple[Ref, Ref]) -> None:
    old = install(store, "6")
    for ref in (*refs, old):
        (store.folder / "notes" / ref.folder).write_text("{}")
    store.collect()
    assert names(store, "notes") == {ref.folder for ref in refs}
    assert ref_of(release_of("tiny", "6", {"bundle.json": b"{}"}, sequence=6)).folder not in names(store, "notes")

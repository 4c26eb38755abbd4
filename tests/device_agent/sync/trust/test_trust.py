"""What Trust does on good days, in publish races, with lying mirrors and on bad disks."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.ngclient import Updater

from device_agent.sync.trust import Trust
from device_agent.sync.trust import trust as trust_module
from edgekit.errors import CorruptRelease, NotInRepository, StorageFailed, Unreachable, Untrusted
from edgekit.release import channel, manifest
from edgekit.release.names import channel_target, release_target
from tests.device_agent.sync.trust.devices import Device, in_place_of, published
from tests.repositories import NOW, Key, MemorySource

STABLE = channel_target("stable")
LIMIT = 1 << 20


def test_a_view_says_what_is_listed(device: Device) -> None:
    device.repository.add_delta(device.repository.made["tiny-1.0"], device.repository.made["tiny-2.0"])
    device.repository.publish()
    view = device.refresh()
    assert view.channels == {"stable"}
    assert view.deltas == {"deltas/tiny-1.0..tiny-2.0.json"}
    assert view.root_version == 2
    assert view.timestamp_version == 4
    release = device.repository.made["tiny-2.0"]
    raw = release.to_bytes()
    listed = view.releases["tiny-2.0"]
    assert (listed.kind, listed.model, listed.version, listed.sequence) == ("model", "tiny", "2.0", 2)
    assert (listed.manifest_bytes, listed.file_bytes) == (len(raw), release.file_bytes)
    assert manifest.parse(device.trust().target(release_target("tiny-2.0"), device.source, limit=LIMIT)) == release


def test_before_the_first_refresh_there_is_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path, published())
    assert device.last() is None
    assert not device.folder.exists()
    with pytest.raises(Untrusted):
        device.trust().target(STABLE, device.source, limit=LIMIT)


def test_a_look_at_an_unchanged_repository_writes_nothing_that_stays(device: Device) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in device.folder.rglob("*") if path.is_file()}

    before = stamps()
    device.now += 600
    device.refresh()
    assert stamps() == before


def test_two_generations_are_kept(device: Device) -> None:
    for _ in range(4):
        device.repository.publish()
        device.refresh()
    assert [path.name for path in device.generations()] == ["gen-4", "gen-5"]


def test_what_a_crash_left_behind_is_removed(device: Device) -> None:
    for name in ("gen-2", "gen-7"):
        (device.folder / name / "root_history").mkdir(parents=True)
        (device.folder / name / "timestamp.json").write_text("half")
        (device.folder / name / "root_history" / "9.root.json").write_text("half")
    device.refresh()
    assert [path.name for path in device.generations()] == ["gen-1"]


def test_a_first_refresh_that_fails_leaves_a_device_that_can_try_again(tmp_path: Path) -> None:
    device = Device(tmp_path, published())
    device.source.files = {}
    with pytest.raises(Unreachable):
        device.refresh()
    assert device.last() is None
    device.source.files = device.repository.files
    assert device.refresh().fresh


def test_a_torn_first_record_is_a_first_time(tmp_path: Path) -> None:
    device = Device(tmp_path, published())
    device.folder.mkdir(parents=True)
    (device.folder / "record.0").write_text('{"seq": 1, "sha')
    assert device.last() is None
    assert device.refresh().fresh


# --- publish races and mirrors ------------------------------------------------------------------


@pytest.mark.parametrize("role", ["snapshot", "targets", "releases", "rollout"])
def test_c10_a_timestamp_that_is_ahead_of_the_rest(device: Device, role: str) -> None:
    view = device.last()
    device.repository.publish("targets", "releases", "rollout")
    missing = f"metadata/{device.repository.role(role).version}.{role}.json"
    raw = device.repository.files.pop(missing)
    device.refuses(Unreachable, progress=True)
    device.repository.files[missing] = raw
    after = device.refresh()
    assert view is not None
    assert after.timestamp_version == view.timestamp_version + 1


def test_c10_a_timestamp_that_a_cache_holds_back_is_no_news(device: Device) -> None:
    view = device.last()
    old = device.repository.files["metadata/timestamp.json"]
    device.repository.publish()
    assert device.refresh(in_place_of(device.repository, "metadata/timestamp.json", old)) == view


class Mirrors(MemorySource):
    """The first one tells `lies` until it is blamed."""

    def __init__(self, honest: MemorySource, lies: dict[str, bytes]) -> None:
        super().__init__(honest.files)
        self.answer = lambda path: lies.get(path) if not self.blamed else None


@pytest.mark.parametrize("path", ["metadata/timestamp.json", "metadata/4.snapshot.json", "metadata/4.releases.json"])
def test_c11_after_a_lying_mirror_comes_another(device: Device, path: str) -> None:
    device.repository.publish()
    mirrors = Mirrors(device.source, {path: b"{}"})
    assert device.refresh(mirrors).timestamp_version == 4
    assert mirrors.blamed == 1


def test_c11_a_repository_that_only_lies_is_given_up(device: Device) -> None:
    source = in_place_of(device.repository, "metadata/timestamp.json", b"{}")
    device.refuses(Untrusted, source)
    assert source.blamed == 3


# --- targets ----------------------------------------------------------------------------------


def test_a_target_is_fetched_once_and_known_without_a_network_from_then_on(device: Device) -> None:
    raw = device.trust().target(STABLE, device.source, limit=LIMIT)
    assert channel.parse(raw).release == "tiny-2.0"
    asked = len(device.source.asked)
    assert device.trust().target(STABLE, None, limit=LIMIT) == raw
    assert device.trust().target(STABLE, device.source, limit=LIMIT) == raw
    assert len(device.source.asked) == asked


def test_a_target_that_was_never_fetched_needs_a_network(device: Device) -> None:
    with pytest.raises(NotInRepository):
        device.trust().target(STABLE, None, limit=LIMIT)


def _spoil(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _shorten(path: Path) -> None:
    path.write_bytes(b"")


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize("change", [_spoil, _shorten, _lengthen])
def test_a_kept_target_is_verified_at_each_use(device: Device, change: Callable[[Path], None]) -> None:
    raw = device.trust().target(STABLE, device.source, limit=LIMIT)
    for path in (device.folder / "targets").iterdir():
        change(path)
    assert device.trust().target(STABLE, device.source, limit=LIMIT) == raw
    assert device.trust().target(STABLE, None, limit=LIMIT) == raw


def test_kept_targets_that_nobody_lists_any_more_are_removed(device: Device) -> None:
    device.trust().target(STABLE, device.source, limit=LIMIT)
    kept = device.trust().target(release_target("tiny-1.0"), device.source, limit=LIMIT)
    device.repository.set_channel("stable", "tiny-1.0", version=3)
    device.repository.publish()
    device.refresh()
    assert [path.read_bytes() for path in (device.folder / "targets").iterdir()] == [kept]


def test_what_is_kept_is_bounded(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "MOST_KEPT_TARGETS", 1)
    for path in (STABLE, release_target("tiny-1.0")):
        newest = device.trust().target(path, device.source, limit=LIMIT)
        assert [file.read_bytes() for file in (device.folder / "targets").iterdir()] == [newest]
    monkeypatch.setattr(trust_module, "MOST_KEPT_BYTES", 10)
    monkeypatch.setattr(trust_module, "MOST_KEPT_TARGETS", 9)
    device.trust().target(release_target("tiny-2.0"), device.source, limit=LIMIT)
    assert len(list((device.folder / "targets").iterdir())) == 1


@pytest.mark.parametrize("lie", [b"{}", b"", b" " * 10_000])
def test_a_target_that_is_not_what_was_signed(device: Device, lie: bytes) -> None:
    path = next(path for path in device.repository.files if path.endswith(".stable.json") and "channels" in path)
    current = device.repository.rollout.targets[STABLE].hashes["sha256"]
    path = f"targets/channels/{current}.stable.json"
    source = in_place_of(device.repository, path, lie)
    state = device.state()
    with pytest.raises(CorruptRelease):
        device.trust().target(STABLE, source, limit=LIMIT)
    assert source.blamed == 3
    assert device.state() == state
    mirrors = Mirrors(device.source, {path: lie})
    assert device.trust().target(STABLE, mirrors, limit=LIMIT)


def test_a_target_that_is_not_there(device: Device) -> None:
    device.source.files = {}
    with pytest.raises(NotInRepository):
        device.trust().target(STABLE, device.source, limit=LIMIT)


def test_a_signed_digest_is_no_path(device: Device) -> None:
    device.repository.rollout.targets[STABLE].hashes["sha256"] = "../../../../../../etc/hostname"
    device.repository.publish("rollout")
    device.refresh()
    with pytest.raises(Untrusted):
        device.trust().target(STABLE, device.source, limit=LIMIT)


@pytest.mark.parametrize(
    "custom",
    [
        None,
        {},
        [],
        {"kind": "firmware", "model": "tiny", "version": "3.0", "sequence": 3, "bytes": 2},
        {"kind": "model", "model": "other", "version": "3.0", "sequence": 3, "bytes": 2},
        {"kind": "model", "model": "tiny", "version": "3.0", "sequence": 0, "bytes": 2},
        {"kind": "model", "model": "tiny", "version": "3.0", "sequence": "3", "bytes": 2},
        {"kind": "model", "model": "tiny", "version": "3.0", "sequence": 3, "bytes": -1},
        {"kind": "model", "model": "../tiny", "version": "3.0", "sequence": 3, "bytes": 2},
    ],
)
def test_a_release_that_is_listed_in_a_way_not_understood_stops_no_other(device: Device, custom: Any) -> None:
    device.repository.add_target("releases", release_target("tiny-3.0"), b"x")
    target = device.repository.releases.targets[release_target("tiny-3.0")]
    target.unrecognized_fields["custom"] = custom
    device.repository.publish("releases")
    assert set(device.refresh().releases) == {"tiny-1.0", "tiny-2.0"}


# --- disks ------------------------------------------------------------------------------------


def test_no_links_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT has neither kind."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(os, "link", refuse)
    device = Device(tmp_path, published())
    device.refresh()
    device.repository.publish()
    assert device.refresh().timestamp_version == 4
    assert not any(path.is_symlink() for path in device.folder.rglob("*"))


def test_what_is_set_and_replaced_inside_of_python_tuf_is_there(tmp_path: Path) -> None:
    """The two private names on which this room relies; the dependency is pinned for their sake."""
    root = published().provisioning().root.encode()
    updater = Updater(str(tmp_path), "metadata/", bootstrap=root)
    assert updater._trusted_set.reference_time.tzinfo is not None
    assert callable(Updater._update_root_symlink)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_takes_nothing(device: Device, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    device.repository.publish()
    view, state = device.last(), device.state()

    def fail(_handle: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageFailed):
            device.refresh()
    assert device.state() == state
    assert device.last() == view
    assert device.refresh().timestamp_version == 4


def test_a_refresh_that_is_cut_off_at_any_fsync_leaves_the_old_state_or_the_new(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fsync is a point after which nothing more happens, as in a power cut."""

    class Cut(BaseException):
        pass

    real = os.fsync
    before = device.last()
    assert before is not None
    device.repository.rotate("timestamp", Key("timestamp anew"))
    versions = []
    for points in range(100):
        left = [points]

        def count(handle: int, left: list[int] = left) -> None:
            if not left[0]:
                raise Cut
            left[0] -= 1
            real(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", count)
            try:
                device.refresh()
            except Cut:
                cut = True
            else:
                cut = False
        view = device.last()
        assert view is not None
        versions.append(view.timestamp_version)
        if not cut:
            break
    assert versions == sorted(versions)
    assert set(versions) == {before.timestamp_version, before.timestamp_version + 1}


def test_trust_is_read_while_another_process_refreshes(device: Device) -> None:
    reader = device.trust()
    assert reader.last() == device.last()
    device.repository.publish()
    device.refresh()
    after = reader.last()
    assert after is not None
    assert after.timestamp_version == 4


def test_reset_begins_anew(device: Device) -> None:
    device.trust().target(STABLE, device.source, limit=LIMIT)
    device.trust().reset()
    assert device.last() is None
    assert not device.generations()
    assert not list((device.folder / "targets").iterdir())
    assert device.refresh().fresh


def test_trust_remembers_floors_over_restarts(device: Device) -> None:
    device.repository.set_floor("tiny", 2)
    device.repository.publish()
    device.refresh()
    last = Trust(device.folder, device.provisioning, clock=lambda: NOW, built=0).last()
    assert last is not None
    assert last.floors == {"tiny": 2}

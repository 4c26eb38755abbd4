"""A4, A5, A6, A9: going back to what was current once (research/sync.md, section 4)."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import TrustLost, Unreachable, Untrusted
from tests.device_agent.sync.trust.devices import Device, published, serve
from tests.repositories import Key, MemorySource, Repository, metadata_path

FAR = 1 << 31


# --- A4 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["snapshot", "targets", "releases", "rollout"])
def test_a04_one_version_back(device: Device, role: str) -> None:
    """By who has the keys of all roles above it, but not its own."""
    repository = device.repository
    repository.role(role).version -= 1
    if role == "snapshot":
        raw = repository.files[metadata_path("snapshot", repository.snapshot.version)]
        repository.timestamp.version += 1
        repository.timestamp.snapshot_meta.version = repository.snapshot.version
        repository.timestamp.snapshot_meta.length = len(raw)
        repository.timestamp.snapshot_meta.hashes = None
        repository.put("timestamp")
    else:
        repository._list(role)
        repository.refresh()
    device.refuses(Untrusted, match="version", progress=role != "snapshot")


def test_a04_the_timestamp_one_version_back(device: Device) -> None:
    old = device.repository.files["metadata/timestamp.json"]
    device.repository.publish()
    device.refresh()
    device.refuses(Untrusted, serve(device.repository, timestamp=old), match="New timestamp version 3 must be >= 4")


def test_a04_another_timestamp_of_the_same_version_is_passed_over(device: Device) -> None:
    view, state = device.last(), device.state()
    device.repository.timestamp.unrecognized_fields["note"] = "another"
    device.repository.put("timestamp")
    assert device.refresh() == view
    assert device.state() == state


# --- A5 ---------------------------------------------------------------------------------------


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _delete(path: Path) -> None:
    path.unlink()


def _garbage(path: Path) -> None:
    path.write_bytes(b'{"seq": 99, "sha256": "x", "payload": ""}')


DAMAGE = [_zero, _truncate, _empty, _delete, _garbage]


def _earlier(repository: Repository) -> MemorySource:
    """A mirror that shows the repository as it was at its beginning, all of it signed by the right keys."""
    earlier = published()
    source = earlier.source()
    files = {path: raw for path, raw in repository.files.items() if path.startswith(("metadata/1.", "metadata/2."))}
    source.files = {path: raw for path, raw in files.items() if "2.root" not in path} | {
        "metadata/timestamp.json": _timestamp_of_version(repository, 2)
    }
    return source


def _timestamp_of_version(repository: Repository, version: int) -> bytes:
    older = repository.copy()
    older.timestamp.version = older.snapshot.version = version
    raw = older.files[metadata_path("snapshot", version)]
    meta = older.timestamp.snapshot_meta
    meta.version, meta.length, meta.hashes = version, len(raw), None
    return older.put("timestamp")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a05_rollback_after_local_state_was_damaged(device: Device, damage: Callable[[Path], None]) -> None:
    for folder in device.generations():
        for path in folder.rglob("*.json"):
            damage(path)
    with pytest.raises(Untrusted, match="has version 1, after 2 had been seen"):
        device.refresh(_earlier(device.repository))
    assert device.last() is None
    assert any("damaged" in note for note in device.notes)
    assert device.refresh().timestamp_version == 3
    assert device.last() is not None


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "releases", "rollout"])
def test_a05_the_floor_of_each_role_alone(device: Device, role: str) -> None:
    """All of the device's metadata is gone, and one role is older than it was: its floor is all that is left."""
    view = device.last()
    assert view is not None
    repository = device.repository
    if role == "root":
        del repository.files["metadata/2.root.json"]
    elif role == "timestamp":
        repository.timestamp.version = 1
        repository.put("timestamp")
    elif role == "snapshot":
        repository.snapshot.version = 2
        repository.put("snapshot")
        repository.timestamp.version += 1
        repository.timestamp.snapshot_meta.version = 2
        repository.timestamp.snapshot_meta.length = repository.timestamp.snapshot_meta.hashes = None
        repository.put("timestamp")
    else:
        repository.role(role).version = 2
        repository.put(role)
        repository._list(role)
        repository.refresh()
    for folder in device.generations():
        for path in folder.rglob("*.json"):
            path.unlink()
    with pytest.raises(Untrusted, match=f"{role} metadata has version"):
        device.refresh()
    assert device.last() is None


def test_a05_a_refresh_that_fails_in_the_middle_lowers_no_floor(device: Device) -> None:
    """What was verified before a failure is kept, and must not be less than what was accepted before."""
    repository = device.repository
    hidden = repository.files.pop("metadata/2.root.json")
    timestamp = repository.files.pop("metadata/timestamp.json")
    for folder in device.generations():
        for path in folder.rglob("*.json"):
            path.unlink()
    with pytest.raises(Unreachable):
        device.refresh()
    repository.files["metadata/timestamp.json"] = timestamp
    with pytest.raises(Untrusted, match="root metadata has version 1, after 2"):
        device.refresh()
    assert device.last() is None
    repository.files["metadata/2.root.json"] = hidden
    assert device.refresh().root_version == 2


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["timestamp.json", "releases.json", "rollout.json", "root_history/2.root.json"])
def test_a05_a_damaged_generation_is_said_and_the_one_before_takes_over(
    device: Device, name: str, damage: Callable[[Path], None]
) -> None:
    before = device.last()
    assert before is not None
    device.repository.set_channel("other", "tiny-1.0")
    device.repository.publish()
    current = device.refresh()
    damage(device.generations()[-1] / name)
    found = device.last()
    assert found is not None
    assert found.channels == before.channels != current.channels
    assert not found.fresh
    assert any("gen-2 is damaged" in note for note in device.notes)
    device.refuses(Untrusted, _earlier(device.repository))
    assert device.refresh() == current
    assert device.last() == current


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("slot", [0, 1])
def test_a05_either_copy_of_the_record_is_enough(device: Device, slot: int, damage: Callable[[Path], None]) -> None:
    """Neither version nor floor is lost with it, and the next refresh writes it anew."""
    view = device.last()
    record = device.folder / f"record.{slot}"
    damage(record)
    assert device.last() == view
    with pytest.raises(Untrusted):
        device.refresh(_earlier(device.repository))
    device.notes.clear()
    device.refresh()
    if damage is not _delete:
        assert any("record" in note for note in device.notes)
    device.notes.clear()
    damage(device.folder / f"record.{1 - slot}")
    assert device.last() == view


# --- A6 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGE)
def test_a06_without_any_record_nothing_is_believed(device: Device, damage: Callable[[Path], None]) -> None:
    for slot in range(2):
        damage(device.folder / f"record.{slot}")
    state = device.state()
    for call in (device.refresh, device.last):
        with pytest.raises(TrustLost, match="no sound record"):
            call()
    with pytest.raises(TrustLost):
        device.trust().target("channels/stable.json", device.source, limit=1 << 20)
    assert device.state() == state
    device.trust().reset()
    assert device.last() is None
    assert device.refresh().timestamp_version == 3


def test_a06_a_record_of_a_newer_version_is_not_guessed_at(device: Device) -> None:
    for slot in range(2):
        path = device.folder / f"record.{slot}"
        found = json.loads(path.read_bytes())
        payload = found["payload"].replace('"format":1', '"format":2')
        path.write_text(
            json.dumps(found | {"payload": payload, "sha256": hashlib.sha256(payload.encode()).hexdigest()})
        )
    with pytest.raises(TrustLost, match="format 2"):
        device.refresh()


# --- A9 ---------------------------------------------------------------------------------------


def _forward(repository: Repository, role: str) -> None:
    repository.role(role).version = FAR
    if role == "timestamp":
        repository.put("timestamp")
    elif role == "snapshot":
        repository.timestamp.version += 1
        repository._seal()
    else:
        repository.put(role)
        repository._list(role)
        repository.refresh()


ROTATED = {
    "timestamp": ["timestamp"],
    "snapshot": ["timestamp", "snapshot"],
    "targets": ["timestamp", "snapshot", "targets"],
    "releases": ["timestamp", "snapshot", "releases"],
    "rollout": ["timestamp", "snapshot", "rollout"],
}


@pytest.mark.parametrize("local", ["kept", "lost"])
@pytest.mark.parametrize("role", ROTATED)
def test_a09_fast_forward_is_undone_by_other_keys(device: Device, role: str, local: str) -> None:
    """Also on a device whose metadata is lost: the floor belongs to the keys, and goes with them."""
    honest = device.repository.copy()
    _forward(device.repository, role)
    assert device.refresh().fresh
    honest.publish()
    honest.publish()
    device.refuses(Untrusted, honest.source(), progress=role not in ("timestamp", "snapshot"))
    for name in ROTATED[role]:
        honest.rotate(name, Key(f"{name} anew"), publish=False)
    honest.publish("targets", "releases", "rollout")
    if local == "lost":
        for path in device.folder.glob("gen-*/**/*.json"):
            path.unlink()
    view = device.refresh(honest.source())
    assert view.fresh
    assert view.timestamp_version == honest.timestamp.version < FAR


def test_a09_one_more_key_is_no_reason_to_forget_a_version(device: Device) -> None:
    """Only revoking takes a version back: else whoever may add a key may go back in time."""
    repository = device.repository
    repository.rotate("timestamp", Key("timestamp"), Key("another"), publish=False)
    repository.publish()
    device.refresh()
    for folder in device.generations():
        for path in folder.rglob("*.json"):
            path.unlink()
    repository.timestamp.version = 2
    repository.put("timestamp", keys=[Key("timestamp")])
    with pytest.raises(Untrusted, match="timestamp metadata has version 2, after 4"):
        device.refresh()


def test_a09_a_key_that_comes_together_with_an_older_version_does_not_excuse_it(device: Device) -> None:
    repository = device.repository
    repository.rotate("timestamp", Key("timestamp"), Key("another"), publish=False)
    for folder in device.generations():
        for path in folder.rglob("*.json"):
            path.unlink()
    repository.timestamp.version = 2
    repository.put("timestamp", keys=[Key("timestamp")])
    with pytest.raises(Untrusted, match="timestamp metadata has version 2, after 3"):
        device.refresh()


def test_a09_floors_that_a_thief_signed_go_with_his_key(device: Device) -> None:
    repository = device.repository
    repository.set_floor("tiny", 1 << 52)
    repository.publish()
    assert device.refresh().floors == {"tiny": 1 << 52}
    repository.set_floor("tiny", 1)
    repository.rotate("releases", Key("releases anew"))
    assert device.refresh().floors == {"tiny": 1}

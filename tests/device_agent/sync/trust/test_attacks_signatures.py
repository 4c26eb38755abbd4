"""A2, A3, A8, A10, A12, A13, A15: who signed what (research/sync.md, section 4)."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.sync.trust import Trust
from edgekit.errors import TrustLost, Untrusted
from edgekit.release.names import release_target
from tests.device_agent.sync.trust.devices import Device, in_place_of, published, serve
from tests.repositories import DAY, NOW, Key, Repository, metadata_path, sign

SIGNED_BY_ANYBODY = ("timestamp", "snapshot", "targets", "releases", "rollout")
CLASSES = {
    "signature": rb'"sig":"([0-9a-f])',
    "key id": rb'"keyid":"([0-9a-f])',
    "version": rb'"version":(\d)',
    "expiry": rb'"expires":"2(\d)',
    "type": rb'"_type":"(\w)',
    "specification": rb'"spec_version":"(\d)',
    "name": rb'"(s)igned"',
    "brace": rb"(\{)",
    "quote": rb'(")',
    "comma": rb"(,)",
}


def publish(repository: Repository, role: str) -> None:
    """A new version of a role, and of what lists it."""
    if role == "root":
        repository.root.version += 1
        repository.put("root")
    elif role in ("snapshot", "timestamp"):
        repository.refresh()
    else:
        repository.publish(role)


def path_of(repository: Repository, role: str) -> str:
    return metadata_path(role, repository.role(role).version)


# --- A2 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("role", ["root", *SIGNED_BY_ANYBODY])
def test_a02_one_flipped_bit(device: Device, role: str, kind: str) -> None:
    publish(device.repository, role)
    path = path_of(device.repository, role)
    raw = bytearray(device.repository.files[path])
    found = re.search(CLASSES[kind], raw)
    assert found is not None
    raw[found.start(1)] ^= 1
    device.refuses(
        Untrusted, in_place_of(device.repository, path, bytes(raw)), progress=role not in ("root", "timestamp")
    )
    assert device.refresh().timestamp_version == device.repository.timestamp.version


PUBLISHED = published()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), role=st.sampled_from(["root", *SIGNED_BY_ANYBODY]))
def test_a02_any_flipped_bit_anywhere(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, role: str) -> None:
    repository = PUBLISHED.copy()
    device = Device(tmp_path_factory.mktemp("device"), repository)
    view = device.refresh()
    publish(repository, role)
    path = path_of(repository, role)
    raw = bytearray(repository.files[path])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Untrusted):
        device.refresh(in_place_of(repository, path, bytes(raw)))
    assert device.last() == view


# --- A3 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", SIGNED_BY_ANYBODY)
@pytest.mark.parametrize("who", ["stranger", "another role", "nobody"])
def test_a03_signed_by_somebody_else(device: Device, role: str, who: str) -> None:
    others = {"stranger": [Key("stranger")], "another role": [Key("timestamp" if role != "timestamp" else "rollout")]}
    owner = device.repository.keys[role]
    device.repository.keys[role] = others.get(who, [])
    publish(device.repository, role)
    device.refuses(Untrusted, match="was signed by 0/1 keys", progress=role != "timestamp")
    device.repository.keys[role] = owner
    publish(device.repository, role)
    assert device.refresh().fresh


def _two_are_needed(repository: Repository, role: str) -> list[Key]:
    keys = [Key("one"), Key("two")]
    delegator: Any = repository.targets.delegations if role in ("releases", "rollout") else repository.root
    repository.rotate(role, *keys, publish=False)
    delegator.roles[role].threshold = 2
    repository.put("root")
    repository.publish("targets", *([role] if role in ("releases", "rollout") else []))
    return keys


@pytest.mark.parametrize("role", SIGNED_BY_ANYBODY)
@pytest.mark.parametrize("how", ["one of two", "the same one twice"])
def test_a03_one_signature_less_than_the_threshold(device: Device, role: str, how: str) -> None:
    keys = _two_are_needed(device.repository, role)
    assert device.refresh().fresh
    device.repository.keys[role] = keys[:1]
    publish(device.repository, role)
    path = path_of(device.repository, role)
    raw = device.repository.files[path]
    if how == "the same one twice":
        found = json.loads(raw)
        found["signatures"] *= 2
        raw = _listed_anew(device.repository, role, json.dumps(found).encode())
    device.refuses(Untrusted, in_place_of(device.repository, path, raw), progress=role != "timestamp")


def _listed_anew(repository: Repository, role: str, raw: bytes) -> bytes:
    """Say the digest of these bytes wherever the role's is said, so that nothing but the signatures is wrong."""
    repository.files[path_of(repository, role)] = raw
    if role not in ("snapshot", "timestamp"):
        repository._list(role)
        repository.refresh()
    elif role == "snapshot":
        meta = repository.timestamp.snapshot_meta
        meta.length, meta.hashes = len(raw), {"sha256": hashlib.sha256(raw).hexdigest()}
        repository.put("timestamp")
    return raw


@pytest.mark.parametrize("role", ["timestamp", "releases"])
def test_a03_a_threshold_of_none(device: Device, role: str) -> None:
    delegator: Any = device.repository.root if role == "timestamp" else device.repository.targets.delegations
    delegator.roles[role].threshold = 0
    publish(device.repository, "root" if role == "timestamp" else "targets")
    device.refuses(Untrusted, match="threshold", progress=role == "releases")


# --- A8 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["releases", "rollout", "targets"])
def test_a08_a_new_snapshot_with_an_old_role_of_equal_length(device: Device, role: str) -> None:
    old = device.repository.files[path_of(device.repository, role)]
    publish(device.repository, role)
    assert len(old) == len(device.repository.files[path_of(device.repository, role)])
    device.refuses(Untrusted, in_place_of(device.repository, path_of(device.repository, role), old), progress=True)


def test_a08_one_role_in_place_of_another(device: Device) -> None:
    device.repository.publish()
    rollout = device.repository.files[path_of(device.repository, "rollout")]
    source = in_place_of(device.repository, path_of(device.repository, "releases"), rollout)
    device.refuses(Untrusted, source, progress=True)


def test_a08_an_old_snapshot_under_a_new_timestamp(device: Device) -> None:
    old = device.repository.files[path_of(device.repository, "snapshot")]
    device.repository.publish()
    source = in_place_of(device.repository, path_of(device.repository, "snapshot"), old)
    device.refuses(Untrusted, source, progress=True)


# --- A10 --------------------------------------------------------------------------------------


def _chain(repository: Repository) -> None:
    """Root versions 3 to 5, each with another key."""
    for version in (3, 4, 5):
        repository.rotate("root", Key(f"root of {version}"), publish=False)
    repository.publish()


def test_a10_a_whole_chain_is_climbed(device: Device) -> None:
    _chain(device.repository)
    assert device.refresh().root_version == 5


def test_a10_a_gap_ends_the_chain(device: Device) -> None:
    _chain(device.repository)
    del device.repository.files["metadata/4.root.json"]
    assert device.refresh().root_version == 3


def test_a10_a_later_version_in_place_of_the_next(device: Device) -> None:
    _chain(device.repository)
    raw = device.repository.files["metadata/5.root.json"]
    device.refuses(Untrusted, in_place_of(device.repository, "metadata/3.root.json", raw))


def _signed_by(repository: Repository, version: int, keys: list[Key]) -> bytes:
    found = json.loads(repository.files[f"metadata/{version}.root.json"])
    root = repository.root
    root.version, kept = version, root.version
    raw = sign(root.from_dict(found["signed"]), keys)
    root.version = kept
    return raw


@pytest.mark.parametrize(
    ("version", "keys"),
    [(3, ["root of 3"]), (4, ["root of 4"]), (4, ["root of 3"]), (4, []), (5, ["root of 5"])],
    ids=["first by new key only", "middle by new key only", "middle by old key only", "middle unsigned", "last"],
)
def test_a10_a_link_that_is_not_signed_by_both(device: Device, version: int, keys: list[str]) -> None:
    _chain(device.repository)
    raw = _signed_by(device.repository, version, [Key(name) for name in keys])
    source = in_place_of(device.repository, f"metadata/{version}.root.json", raw)
    device.refuses(Untrusted, source, match="root was signed by 0/1 keys", progress=version > 3)
    assert device.refresh().root_version == 5


def test_a10_what_was_climbed_before_a_bad_link_stays(device: Device) -> None:
    """A thief whose key is revoked by version 3 gains nothing by spoiling version 4, and then hiding version 3."""
    device.repository.rotate("timestamp", Key("timestamp anew"), publish=False)
    device.repository.rotate("root", Key("root of 4"), publish=False)
    device.refuses(Untrusted, serve(device.repository, **{"4_root": b"{}"}), progress=True)
    for version in (3, 4):
        del device.repository.files[f"metadata/{version}.root.json"]
    device.repository.keys["timestamp"] = [Key("timestamp")]
    device.repository.refresh()
    device.refuses(Untrusted, match="timestamp was signed by 0/1 keys")


def test_a10_only_so_many_versions_at_once(device: Device) -> None:
    for _ in range(70):
        device.repository.root.version += 1
        device.repository.put("root")
    device.repository.publish()
    assert device.refresh().root_version < 72
    assert device.refresh().root_version == 72


# --- A12 --------------------------------------------------------------------------------------


def _stolen_rollout(repository: Repository) -> None:
    """Lists a release of its own making, which nobody else signed."""
    other = Repository()
    evil = other.add_release("tiny", "6.6", {"bundle.json": b"evil"})
    target = other.releases.targets[release_target(evil.id)]
    repository.add_target(
        "rollout", release_target(evil.id), evil.to_bytes(), custom=target.unrecognized_fields["custom"]
    )
    repository.set_channel("stable", evil.id, version=9)
    repository.publish("rollout")


def test_a12_a_stolen_rollout_key_lists_no_release(device: Device) -> None:
    _stolen_rollout(device.repository)
    view = device.refresh()
    assert set(view.releases) == {"tiny-1.0", "tiny-2.0"}
    with pytest.raises(Untrusted, match="nobody who may has signed"):
        device.trust().target(release_target("tiny-6.6"), device.source, limit=1 << 20)


@pytest.mark.parametrize("path", ["releases/tiny-6.6.json", "channels/a/b.json", "other.json", "../x.json"])
def test_a12_a_path_that_the_role_may_not_sign(device: Device, path: str) -> None:
    device.repository.add_target("rollout", path, b"evil")
    device.repository.publish("rollout")
    view = device.refresh()
    assert view.channels == {"stable"}
    assert not view.deltas
    with pytest.raises(Untrusted):
        device.trust().target(path, device.source, limit=1 << 20)


def test_a12_the_role_targets_itself_lists_no_release(device: Device) -> None:
    release = device.repository.made["tiny-1.0"]
    device.repository.unlist_release(release.id)
    device.repository.add_target("targets", release_target(release.id), release.to_bytes())
    device.repository.publish("targets", "releases")
    assert set(device.refresh().releases) == {"tiny-2.0"}
    with pytest.raises(Untrusted):
        device.trust().target(release_target(release.id), device.source, limit=1 << 20)


def test_a12_a_release_that_targets_does_not_let_the_role_list(device: Device) -> None:
    """An owner who does not trust the key with everything any more narrows what it may sign."""
    delegations: Any = device.repository.targets.delegations
    delegations.roles["releases"].paths = ["releases/tiny-1*"]
    device.repository.publish("targets")
    assert set(device.refresh().releases) == {"tiny-1.0"}
    with pytest.raises(Untrusted, match="nobody who may has signed"):
        device.trust().target(release_target("tiny-2.0"), device.source, limit=1 << 20)


def test_a12_only_the_releases_role_says_floors_and_they_never_fall(device: Device) -> None:
    repository = device.repository
    repository.set_floor("tiny", 2)
    repository.rollout.unrecognized_fields["x-edgekit-floors"] = {"tiny": 0, "other": 7}
    repository.publish()
    assert device.refresh().floors == {"tiny": 2}
    repository.set_floor("tiny", 1)
    repository.publish()
    assert device.refresh().floors == {"tiny": 2}


def test_a12_a_new_device_knows_the_floors_that_it_was_provisioned_with(tmp_path: Path) -> None:
    repository = published()
    device = Device(tmp_path, repository, provisioning=repository.provisioning(floors={"tiny": 2, "other": 5}))
    assert device.refresh().floors == {"tiny": 2, "other": 5}


# --- A13 --------------------------------------------------------------------------------------


def test_a13_stolen_timestamp_and_snapshot_keys_freeze_until_expiry_and_no_longer(device: Device) -> None:
    repository = device.repository
    old = repository.copy()
    repository.publish()
    for days in (29, 58, 87):
        old.now = device.now = NOW + days * DAY
        old.refresh()
        view = device.refresh(old.source())
        assert view.fresh
    device.now = old.now = NOW + 91 * DAY
    old.refresh()
    view = device.refresh(old.source())
    assert not view.fresh
    assert set(view.releases) == {"tiny-1.0", "tiny-2.0"}


@pytest.mark.parametrize("role", ["releases", "rollout", "targets", "root"])
def test_a13_stolen_timestamp_and_snapshot_keys_sign_nothing_else(device: Device, role: str) -> None:
    device.repository.keys[role] = [Key("timestamp"), Key("snapshot")]
    publish(device.repository, role)
    device.refuses(Untrusted, progress=role != "root")


# --- A15 --------------------------------------------------------------------------------------


def _elsewhere() -> Repository:
    repository = Repository(prefix="elsewhere ")
    repository.add_release("tiny", "9.0", {"bundle.json": b"{}"})
    repository.publish("targets", "releases", "rollout")
    repository.publish("targets", "releases", "rollout")
    repository.publish("targets", "releases", "rollout")
    return repository


def _all(other: Repository, _mine: Repository) -> dict[str, bytes]:
    return other.files


def _but_root(other: Repository, mine: Repository) -> dict[str, bytes]:
    return other.files | {path: raw for path, raw in mine.files.items() if "root" in path}


def _delegated(other: Repository, mine: Repository) -> dict[str, bytes]:
    mine.publish()
    found = dict(mine.files)
    for role in ("releases", "rollout"):
        found[path_of(mine, role)] = other.files[path_of(other, role)]
    return found


@pytest.mark.parametrize("swap", [_all, _but_root, _delegated])
def test_a15_another_repositorys_metadata(
    device: Device, swap: Callable[[Repository, Repository], dict[str, bytes]]
) -> None:
    source = device.source
    source.files = swap(_elsewhere(), device.repository)
    device.refuses(Untrusted, source, progress=swap is _delegated)


def test_a15_a_wrong_root_was_provisioned(tmp_path: Path) -> None:
    device = Device(tmp_path, published(), provisioning=_elsewhere().provisioning())
    with pytest.raises(Untrusted):
        device.refresh()
    assert device.last() is None


@pytest.mark.parametrize("root", ["", "{}", "[" * 500_000, '{"signatures": [], "signed": {}}'])
def test_a15_no_root_was_provisioned(tmp_path: Path, root: str) -> None:
    repository = published()
    provisioning = repository.provisioning()
    device = Device(tmp_path, repository, provisioning=type(provisioning)(format=1, root=root))
    with pytest.raises(Untrusted):
        device.refresh()
    assert not device.source.asked


def test_a15_another_root_over_what_was_trusted_before(device: Device) -> None:
    other = Trust(device.folder, _elsewhere().provisioning(), clock=lambda: NOW, built=0)
    state = device.state()
    with pytest.raises(TrustLost, match="another root"):
        other.refresh(_elsewhere().source())
    with pytest.raises(TrustLost):
        other.last()
    assert device.state() == state
    other.reset()
    assert other.last() is None
    assert set(other.refresh(_elsewhere().source()).releases) == {"tiny-9.0"}

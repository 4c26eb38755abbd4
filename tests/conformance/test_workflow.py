"""TUF's client workflow, driven as the public conformance suite drives it, and named after its tests.

These stand in where the suite is not at hand (see client.py for how to run it): versions, hashes, time, thresholds and
the requests that a client makes.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.conftest import Client, Server
from tests.imports import ROOT
from tests.repositories import DAY, Key, Repository, metadata_path

CLIENT = ROOT / "tests" / "conformance" / "client.py"
FRESH = {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


def seal(repository: Repository, *, hashes: bool = True) -> None:
    """Sign snapshot and timestamp as they are: with the versions and times that a test gave them."""
    raw = repository.put("snapshot")
    meta = repository.timestamp.snapshot_meta
    meta.version = repository.snapshot.version
    meta.length = len(raw) if hashes else None
    meta.hashes = {"sha256": hashlib.sha256(raw).hexdigest()} if hashes else None
    repository.put("timestamp")


def root_again(repository: Repository) -> None:
    repository.root.version += 1
    repository.put("root")


# --- basic ------------------------------------------------------------------------------------


def test_basic_init_and_refresh(client: Client, server: Server) -> None:
    assert client.roles() == {"root": 1}
    assert client.refresh() == 0
    assert server.names() == ["2.root", "timestamp", "1.snapshot", "1.targets"]
    assert client.roles() == FRESH


def test_basic_as_a_program_of_its_own(client: Client, server: Server) -> None:
    """With the machine's clock, so that nothing may expire."""
    for role in ("targets", "root"):
        server.repository.role(role).expires = server.repository.until(10_000)
    common = [sys.executable, str(CLIENT), "--metadata-dir", str(client.metadata), "--metadata-url"]
    done = subprocess.run([*common, f"{server.url}/metadata/", "refresh"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert client.roles() == FRESH
    done = subprocess.run([*common, f"{server.url}/none/", "refresh"], check=False, capture_output=True, text=True)
    assert done.returncode == 1


def test_implicit_refresh(client: Client, server: Server) -> None:
    assert client.download("nonexistent artifact") == 1
    assert server.names() == ["2.root", "timestamp", "1.snapshot", "1.targets"]
    assert client.roles() == FRESH


@pytest.mark.parametrize("spoil", ["no version", "other signature"])
def test_invalid_and_unsigned_initial_root(tmp_path: Path, server: Server, spoil: str) -> None:
    found = json.loads(server.repository.files["metadata/1.root.json"])
    if spoil == "no version":
        del found["signed"]["version"]
    else:
        found["signatures"][0]["sig"] = "00" * 64
    (tmp_path / "other").mkdir()
    client = Client(tmp_path / "other", server)
    client.init(json.dumps(found).encode())
    assert client.refresh() == 1
    assert not server.asked


def test_timestamp_content_changes(client: Client) -> None:
    assert client.refresh() == 0
    before = (client.metadata / "timestamp.json").read_bytes()
    client.repository.timestamp.snapshot_meta.version = 100
    client.repository.put("timestamp")
    assert client.refresh() == 0
    assert (client.metadata / "timestamp.json").read_bytes() == before


@pytest.mark.parametrize("what", ["version", "hash", "length"])
def test_new_targets_mismatch(client: Client, what: str) -> None:
    assert client.refresh() == 0
    repository = client.repository
    repository.targets.version += 1
    repository.put("targets")
    repository._list("targets")
    meta = repository.snapshot.meta["targets.json"]
    if what == "version":
        meta.version, meta.length, meta.hashes = 3, None, None
        repository.files["metadata/3.targets.json"] = repository.files["metadata/2.targets.json"]
    elif what == "hash":
        meta.hashes = {"sha256": "0" * 64}
    else:
        meta.length = 1
    repository.refresh()
    assert client.refresh() == 1
    assert client.roles() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}


def test_custom_fields(client: Client) -> None:
    assert client.refresh() == 0
    root = client.repository.root
    root.unrecognized_fields["custom-field"] = "value"
    keyid = root.roles["root"].keyids[0]
    root.keys[keyid].unrecognized_fields["extra-field"] = {"a": 1}
    root.roles["root"].unrecognized_fields["another-field"] = "value"
    root_again(client.repository)
    assert client.refresh() == 0
    assert client.roles()["root"] == 2


# --- rollback and fast-forward --------------------------------------------------------------------


def test_simple_snapshot_rollback(client: Client, server: Server) -> None:
    """A snapshot that the timestamp does not name is not even asked for."""
    client.repository.refresh()
    assert client.refresh() == 0
    client.repository.snapshot.version = 1
    client.repository.put("snapshot")
    assert client.refresh() == 0
    assert client.roles()["snapshot"] == 2
    assert server.names()[-1] == "timestamp"


def test_new_timestamp_version_rollback(client: Client, server: Server) -> None:
    client.repository.refresh()
    assert client.refresh() == 0
    client.repository.timestamp.version = 1
    client.repository.put("timestamp")
    assert client.refresh() == 1
    assert client.roles()["timestamp"] == 2
    assert server.names()[-1] == "timestamp"


@pytest.mark.parametrize("hashes", [False, True], ids=["basic", "with hashes"])
def test_snapshot_rollback(client: Client, server: Server, hashes: bool) -> None:
    repository = client.repository
    repository.refresh()
    assert client.refresh() == 0
    repository.snapshot.version = 1
    repository.timestamp.version = 3
    seal(repository, hashes=hashes)
    assert client.refresh() == 1
    assert (client.roles()["timestamp"], client.roles()["snapshot"]) == (2, 2)
    assert server.names()[-1] == "timestamp"


@pytest.mark.parametrize("hashes", [False, True], ids=["basic", "with hashes"])
def test_targets_rollback(client: Client, hashes: bool) -> None:
    repository = client.repository
    repository.publish("targets")
    assert client.refresh() == 0
    repository.targets.version = 1
    repository._list("targets")
    repository.snapshot.version, repository.timestamp.version = 3, 3
    seal(repository, hashes=hashes)
    assert client.refresh() == 1
    assert (client.roles()["snapshot"], client.roles()["targets"]) == (2, 2)


def test_new_targets_fast_forward_recovery(client: Client) -> None:
    repository = client.repository
    repository.targets.version = 99
    repository.publish("targets")
    assert client.refresh() == 0
    assert client.roles()["targets"] == 100
    repository.rotate("snapshot", Key("snapshot anew"), publish=False)
    repository.targets.version = 1
    repository.publish("targets")
    assert client.refresh() == 0
    assert client.roles()["targets"] == 2


def test_new_snapshot_fast_forward_recovery(client: Client) -> None:
    repository = client.repository
    repository.snapshot.version = 99_998
    repository.refresh()
    assert client.refresh() == 0
    assert client.roles()["snapshot"] == 99_999
    for role in ("snapshot", "timestamp"):
        repository.rotate(role, Key(f"{role} anew"), publish=False)
    repository.snapshot.version = 0
    repository.refresh()
    assert client.refresh() == 0
    assert client.roles()["snapshot"] == 1


def test_new_timestamp_fast_forward_recovery(client: Client) -> None:
    repository = client.repository
    repository.timestamp.version = 99
    repository.refresh()
    assert client.refresh() == 0
    assert client.roles()["timestamp"] == 100
    repository.rotate("timestamp", Key("timestamp anew"), publish=False)
    repository.timestamp.version = 1
    seal(repository)
    assert client.refresh() == 0
    assert client.roles()["timestamp"] == 1


def test_new_snapshot_version_mismatch(client: Client, server: Server) -> None:
    """What was verified before the failure stays trusted, and nothing behind it is."""
    repository = client.repository
    repository.snapshot.version = 2
    raw = repository.put("snapshot")
    repository.files["metadata/1.snapshot.json"] = raw
    repository.timestamp.snapshot_meta.hashes = repository.timestamp.snapshot_meta.length = None
    repository.put("timestamp")
    assert client.refresh() == 1
    assert client.roles() == {"root": 1, "timestamp": 1}
    assert server.names()[-1] == "1.snapshot"


# --- expiry -----------------------------------------------------------------------------------


def test_root_expired(client: Client) -> None:
    """Root climbs, nothing else does (5.3.10)."""
    assert client.refresh() == 0
    client.repository.root.expires = client.repository.until(-1)
    root_again(client.repository)
    client.repository.publish("targets")
    assert client.refresh() == 1
    assert client.roles() == FRESH | {"root": 2}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_expired_role(client: Client, role: str) -> None:
    assert client.refresh() == 0
    repository = client.repository
    repository.targets.version = repository.snapshot.version = repository.timestamp.version = 2
    repository.role(role).expires = repository.until(-5)
    repository.put("targets")
    repository._list("targets")
    seal(repository)
    assert client.refresh() == 1
    assert client.roles()["targets"] == 1
    if role != "targets":
        assert client.roles()["snapshot"] <= (2 if role == "snapshot" else 1)


def test_expired_local_metadata(client: Client) -> None:
    """It is of use still: to go on from, and against rollback."""
    repository = client.repository
    repository.timestamp.expires = repository.until(7)
    repository.timestamp.version = 2
    seal(repository)
    assert client.refresh() == 0
    client.now += 18 * DAY
    assert client.refresh() == 1
    repository.targets.version = repository.snapshot.version = 2
    repository.put("targets")
    repository._list("targets")
    repository.timestamp.version = 1
    repository.timestamp.expires = repository.until(21)
    seal(repository)
    assert client.refresh() == 1
    repository.timestamp.version = 3
    seal(repository)
    assert client.refresh() == 0
    assert client.roles() == {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2}


# --- keys -------------------------------------------------------------------------------------


def test_root_has_keys_but_not_snapshot(client: Client) -> None:
    repository = client.repository
    assert client.refresh() == 0
    for name in ("more", "still more"):
        repository.root.add_key(Key(name).public_key, "snapshot")
    repository.root.roles["snapshot"].threshold = 2
    root_again(repository)
    repository.refresh()
    assert client.refresh() == 1
    assert client.roles() == FRESH | {"root": 2, "timestamp": 2}
    repository.keys["snapshot"].append(Key("more"))
    repository.refresh()
    assert client.refresh() == 0
    assert client.roles() == {"root": 2, "timestamp": 3, "snapshot": 3, "targets": 1}


def test_snapshot_threshold_above_the_number_of_keys(client: Client) -> None:
    assert client.refresh() == 0
    client.repository.root.roles["snapshot"].threshold = 6
    root_again(client.repository)
    client.repository.refresh()
    assert client.refresh() == 1
    assert client.roles()["snapshot"] == 1


def test_duplicate_keys_root(client: Client) -> None:
    repository = client.repository
    assert client.refresh() == 0
    role = repository.root.roles["snapshot"]
    role.keyids = role.keyids * 9
    role.threshold = 6
    root_again(repository)
    repository.refresh()
    assert client.refresh() == 1
    assert client.roles() == FRESH


def test_duplicate_signatures(client: Client) -> None:
    repository = client.repository
    assert client.refresh() == 0
    repository.root.add_key(Key("more").public_key, "timestamp")
    repository.root.roles["timestamp"].threshold = 2
    root_again(repository)
    repository.refresh()
    found = json.loads(repository.files["metadata/timestamp.json"])
    found["signatures"] *= 2
    repository.files["metadata/timestamp.json"] = json.dumps(found).encode()
    assert client.refresh() == 1
    assert client.roles() == FRESH | {"root": 2}


# --- key rotation: (keys, threshold, who signs) of each version of root ---------------------------

ROTATIONS: dict[str, tuple[list[tuple[str, int, str]], bool]] = {
    "1-of-1": ([("b", 1, "b"), ("c", 1, "cb"), ("c", 1, "c")], True),
    "1-of-1, others sign too": ([("b", 1, "dbe"), ("c", 1, "dcbe"), ("c", 1, "dce")], True),
    "3-of-5, other signers": ([("abcde", 3, "ace"), ("abcde", 3, "aeb"), ("abcde", 3, "abd")], True),
    "3-of-5, one key rotated": ([("abcde", 3, "ace"), ("abdef", 3, "aeb")], True),
    "3-of-5, with a step between": ([("abcde", 3, "ace"), ("abdef", 3, "acef"), ("abdef", 3, "aef")], True),
    "3-of-5, all rotated": ([("abcde", 3, "ace"), ("fghij", 3, "acefgh"), ("fghij", 3, "fgh")], True),
    "threshold up": ([("bcd", 1, "b"), ("bcd", 2, "bc")], True),
    "threshold down": ([("bcd", 2, "bc"), ("bcd", 1, "bc"), ("bcd", 1, "b")], True),
    "a key more": ([("b", 1, "b"), ("bc", 2, "bc")], True),
    "fail: not by the old key": ([("b", 1, "b"), ("c", 1, "cde")], False),
    "fail: not by the new key": ([("b", 1, "b"), ("c", 1, "bde")], False),
    "fail: not by 3 new keys": ([("abcde", 3, "ace"), ("abdef", 3, "ace")], False),
    "fail: not by 3 old keys": ([("abcde", 3, "ace"), ("abdef", 3, "aef")], False),
    "fail: new threshold not reached": ([("bcd", 1, "b"), ("bcd", 2, "c")], False),
    "fail: old threshold not reached": ([("bcd", 2, "bc"), ("bcd", 1, "b")], False),
}


def _keys(names: str) -> list[Key]:
    return [Key(f"key {name}") for name in names]


@pytest.mark.parametrize("name", ROTATIONS)
def test_root_rotation(tmp_path: Path, server: Server, name: str) -> None:
    versions, expected = ROTATIONS[name]
    repository = server.repository
    role = repository.root.roles["root"]
    for number, (keys, threshold, signers) in enumerate(versions, 1):
        for keyid in list(role.keyids):
            repository.root.revoke_key(keyid, "root")
        for key in _keys(keys):
            repository.root.add_key(key.public_key, "root")
        role.threshold = threshold
        repository.root.version = number
        repository.put("root", keys=_keys(signers))
    (tmp_path / "rotated").mkdir()
    client = Client(tmp_path / "rotated", server)
    assert client.init() == 0
    assert client.refresh() == (0 if expected else 1)
    last = len(versions) if expected else len(versions) - 1
    assert (client.metadata / "root.json").read_bytes() == repository.files[f"metadata/{last}.root.json"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize(
    ("keys", "threshold", "signers", "expected"),
    [
        ("c", 1, "c", True),
        ("b", 1, "dbe", True),
        ("c", 1, "bde", False),
        ("abdef", 3, "ace", False),
        ("abdef", 3, "ae", False),
        ("abcde", 3, "ace", True),
        ("abcde", 3, "bcd", True),
        ("abcde", 3, "cde", True),
    ],
)
def test_non_root_rotations(client: Client, role: str, keys: str, threshold: int, signers: str, expected: bool) -> None:
    repository = client.repository
    repository.rotate(role, *_keys(keys), publish=False)
    repository.root.roles[role].threshold = threshold
    repository.put("root")
    repository.keys[role] = _keys(signers)
    repository.publish("targets")
    assert client.refresh() == (0 if expected else 1)
    if expected:
        path = metadata_path(role, repository.role(role).version)
        assert (client.metadata / f"{role}.json").read_bytes() == repository.files[path]


def test_many_root_rotations(client: Client) -> None:
    for _ in range(40):
        root_again(client.repository)
    assert client.refresh() == 0
    assert client.roles()["root"] == 41

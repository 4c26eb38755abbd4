"""What a client refuses on its way, and what it trusts by then; named after the public conformance suite's tests."""

import json

import pytest
from tuf.api.metadata import MetaFile

from tests.conformance.conftest import Client, Server
from tests.conformance.test_delegations import build
from tests.conformance.test_workflow import root_again, seal
from tests.repositories import DAY, Key, Repository, metadata_path

BY_THEN = {
    "root": {"root": 1},
    "timestamp": {"root": 2},
    "snapshot": {"root": 2, "timestamp": 2},
    "targets": {"root": 2, "timestamp": 2, "snapshot": 2},
}
"""Versions that are trusted when a role of a repository at version 2 is refused."""


def all_again(repository: Repository) -> None:
    root_again(repository)
    repository.publish("targets")


@pytest.mark.parametrize("role", BY_THEN)
def test_unsigned_metadata(client: Client, role: str) -> None:
    client.repository.keys[role] = []
    all_again(client.repository)
    assert client.refresh() == 1
    assert client.roles() == BY_THEN[role]


@pytest.mark.parametrize("role", ["root", "snapshot", "targets"])
def test_url_and_metadata_version_mismatch(client: Client, role: str) -> None:
    """What is called 2.json says that it is 3."""
    repository = client.repository
    all_again(repository)
    at = metadata_path(role, 2)
    repository.role(role).version = 3
    repository.files[at] = repository.put(role)
    if role == "targets":
        repository.snapshot.meta["targets.json"] = MetaFile(2)
    if role != "root":
        seal(repository, hashes=False)
        repository.timestamp.snapshot_meta.version = 2
        repository.put("timestamp")
    assert client.refresh() == 1
    assert client.roles() == BY_THEN[role]


@pytest.mark.parametrize(
    ("missing", "trusted"),
    [
        ("2.snapshot", {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1}),
        ("2.targets", {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}),
        ("timestamp", {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}),
    ],
)
def test_404(client: Client, server: Server, missing: str, trusted: dict[str, int]) -> None:
    assert client.refresh() == 0
    client.repository.publish("targets")
    del client.repository.files[f"metadata/{missing}.json"]
    assert client.refresh() == 1
    assert server.names()[-1] == missing
    assert client.roles() == trusted


def test_incorrect_metadata_type(client: Client) -> None:
    """A snapshot by the timestamp's key in place of the timestamp, and right in everything but its type."""
    repository = client.repository
    repository.snapshot.version = 2
    repository.snapshot.meta = {"snapshot.json": MetaFile(1)}
    repository.files["metadata/timestamp.json"] = repository.put("snapshot", keys=[Key("timestamp")])
    assert client.refresh() == 1
    assert client.roles() == {"root": 1}


def test_metadata_bytes_match(client: Client) -> None:
    """What is kept is what came, byte for byte: digests are of that."""
    raw = client.repository.files["metadata/timestamp.json"] + b" "
    client.repository.files["metadata/timestamp.json"] = raw
    assert client.refresh() == 0
    assert (client.metadata / "timestamp.json").read_bytes() == raw


def test_deprecated_keyid_hash_algorithms(client: Client) -> None:
    """A field of a key that the specification does not know is nothing to a client."""
    repository = client.repository
    for key in repository.root.keys.values():
        key.unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    all_again(repository)
    assert client.refresh() == 0
    assert client.roles() == {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 2}
    assert json.loads((client.metadata / "root.json").read_bytes())["signed"]["version"] == 2


# --- delegated roles and time -------------------------------------------------------------------


def expire(repository: Repository, role: str, *, days: float) -> None:
    """A new version of a delegated role, good for so long."""
    signed = repository.role(role)
    signed.version += 1
    signed.expires = repository.until(days)
    repository.put(role)
    repository.snapshot.meta[f"{role}.json"] = MetaFile(signed.version)
    repository.refresh()


def test_delegated_targets_expired(client: Client) -> None:
    """A role that is out of date when it is first seen says nothing about anything (specification, 5.6.7)."""
    repository = client.repository
    build(repository, [("targets", "A", ["*"], False)], {"x": ("A", b"x")})
    expire(repository, "A", days=-1)
    assert client.refresh() == 0
    assert client.download("x") == 1
    assert client.downloaded() == []
    assert set(client.roles()) == {"root", "timestamp", "snapshot", "targets"}


def test_expired_local_delegated_targets(client: Client) -> None:
    """One that was good goes out of date here, and comes back with its next version."""
    repository = client.repository
    build(repository, [("targets", "A", ["*"], False)], {"x": ("A", b"x"), "y": ("A", b"y")})
    expire(repository, "A", days=7)
    assert client.download("x") == 0
    client.now += 18 * DAY
    assert client.download("y") == 1
    assert client.downloaded() == [b"x"]
    expire(repository, "A", days=21)
    assert client.download("y") == 0
    assert client.downloaded() == [b"x", b"y"]

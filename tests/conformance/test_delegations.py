"""Delegations and downloads, named after the public suite's tests."""

from typing import Any
from urllib.parse import quote

import pytest
from tuf.api.metadata import Delegations, MetaFile, Targets

from tests.conformance.conftest import Client, Server
from tests.repositories import Key, Repository, metadata_path

Edge = tuple[str, str, list[str], bool]
"""Who delegates to whom which paths, and whether that ends the search."""

GRAPHS: dict[str, tuple[list[Edge], list[str]]] = {
    "basic": ([("targets", "A", ["*"], False)], ["A"]),
    "single level": ([("targets", "A", ["*"], False), ("targets", "B", ["*"], False)], ["A", "B"]),
    "depth first": (
        [
            ("targets", "A", ["*"], False),
            ("targets", "B", ["*"], False),
            ("A", "C", ["*"], False),
            ("C", "D", ["*"], False),
        ],
        ["A", "C", "D", "B"],
    ),
    "terminating": (
        [
            ("targets", "A", ["*"], False),
            ("targets", "B", ["*"], False),
            ("A", "C", ["*"], True),
            ("A", "D", ["*"], False),
            ("C", "E", ["*"], False),
        ],
        ["A", "C", "E"],
    ),
    "paths that do not match": (
        [("targets", "A", ["*.py"], False), ("targets", "B", ["*"], False), ("A", "C", ["*"], False)],
        ["B"],
    ),
    "cyclic": (
        [
            ("targets", "A", ["*"], False),
            ("targets", "B", ["*"], False),
            ("B", "C", ["*"], False),
            ("C", "D", ["*"], False),
            ("D", "B", ["*"], False),
        ],
        ["A", "B", "C", "D"],
    ),
    "two to a third": (
        [
            ("targets", "A", ["*"], False),
            ("targets", "B", ["*"], False),
            ("B", "C", ["*"], False),
            ("A", "C", ["*"], False),
        ],
        ["A", "C", "B"],
    ),
}


def build(repository: Repository, edges: list[Edge], contents: dict[str, tuple[str, bytes]] | None = None) -> None:
    """Roles of such a graph; `contents` are target paths with their role and bytes."""
    roles: dict[str, Any] = {"targets": repository.targets}
    repository.targets.delegations = Delegations({}, {})
    for _, name, _, _ in edges:
        roles.setdefault(name, Targets(expires=repository.until(30)))
    for delegator, name, paths, terminating in edges:
        signed = roles[delegator]
        signed.delegations = signed.delegations or Delegations({}, {})
        repository.delegate_from(signed, name, paths, terminating=terminating)
        signed.add_key(Key(name).public_key, name)
    for path, (role, data) in (contents or {}).items():
        setattr(repository, role, roles[role])
        repository.add_target(role, path, data)
    repository.snapshot.meta = {}
    for name, signed in roles.items():
        setattr(repository, name, signed)
        repository.keys.setdefault(name, [Key(name)])
        if name == "targets":
            signed.version += 1
        raw = repository.put(name)
        encoded = quote(name, "")
        repository.files[f"metadata/{signed.version}.{encoded}.json"] = raw
        repository.snapshot.meta[f"{name}.json"] = MetaFile(signed.version)
    repository.refresh()


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_traversal(client: Client, server: Server, name: str) -> None:
    edges, order = GRAPHS[name]
    build(client.repository, edges)
    assert client.download("missingpath") == 1
    assert server.names()[4:] == [f"1.{role}" for role in order]


TREE: list[Edge] = [
    ("targets", "A", ["*.doc", "*.md"], False),
    ("targets", "B", ["releases/*/*"], False),
    ("B", "C", ["releases/x/*"], False),
    ("B", "D", ["releases/y/*.zip"], False),
]
CONTENTS = {
    "targetfile": ("targets", b"of targets"),
    "README.md": ("A", b"of A"),
    "releases/x/x_v1": ("C", b"of C"),
    "releases/y/y_v1.zip": ("D", b"of D"),
    "releases/z/z_v1.zip": ("D", b"not D's to sign"),
}


@pytest.mark.parametrize(
    ("path", "found", "order"),
    [
        ("targetfile", True, []),
        ("README.md", True, ["A"]),
        ("releases/x/x_v1", True, ["B", "C"]),
        ("releases/y/y_v1.zip", True, ["B", "D"]),
        ("releases/z/z_v1.zip", False, ["B"]),
    ],
)
def test_targetfile_search(client: Client, server: Server, path: str, found: bool, order: list[str]) -> None:
    build(client.repository, TREE, CONTENTS)
    assert client.download(path) == (0 if found else 1)
    assert server.names()[4:] == [f"1.{role}" for role in order]
    assert client.downloaded() == ([CONTENTS[path][1]] if found else [])


@pytest.mark.parametrize("role", ["?", "#", "/delegatedrole", "../delegatedrole"])
def test_unusual_role_name(client: Client, server: Server, role: str) -> None:
    build(client.repository, [("targets", role, ["*"], False)])
    assert client.download("nonexistent target") == 1
    assert f"1.{quote(role, '')}" in server.names()
    assert len(client.roles()) == 5


@pytest.mark.parametrize("who", ["stranger", "targets"])
def test_delegated_role_signed_by_another(client: Client, who: str) -> None:
    repository = client.repository
    repository.keys["A"] = [Key(who)]
    build(repository, [("targets", "A", ["*"], False)], {"x": ("A", b"x")})
    assert client.download("x") == 1
    assert not client.downloaded()


def test_cached_role_is_verified_against_its_current_delegator(client: Client) -> None:
    """A file of a role that was good under the keys before is not good under the keys of now."""
    repository = client.repository
    build(repository, [("targets", "A", ["*"], False)], {"x": ("A", b"x")})
    assert client.download("x") == 0
    delegations = repository.targets.delegations
    assert delegations is not None
    repository.targets.revoke_key(Key("A").public_key.keyid, "A")
    repository.targets.add_key(Key("A anew").public_key, "A")
    repository.targets.version += 1
    repository.put("targets")
    repository.snapshot.meta["targets.json"] = MetaFile(repository.targets.version)
    repository.refresh()
    assert client.download("x") == 1


# --- downloads --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["target_file.txt", "path/to/a/target_file.txt"])
def test_client_downloads_expected_file(client: Client, name: str) -> None:
    client.repository.add_target("targets", name, b"contents")
    client.repository.publish("targets")
    assert client.refresh() == 0
    assert client.downloaded() == []
    assert client.download(name) == 0
    assert client.downloaded() == [b"contents"]


def test_repository_substitutes_target_file(client: Client) -> None:
    repository = client.repository
    repository.add_target("targets", "a", b"contents of a")
    repository.add_target("targets", "b", b"contents of b")
    repository.publish("targets")
    assert client.download("a") == 0
    for path in [path for path in repository.files if path.startswith("targets/") and path[-2:] in (".a", ".b")]:
        repository.files[path] = b"bad as can be"
    client.download("a")
    assert client.download("b") == 1
    assert client.downloaded() == [b"contents of a"]


def test_download_is_cached(client: Client, server: Server) -> None:
    client.repository.add_target("targets", "a", b"contents")
    client.repository.publish("targets")
    for _ in range(2):
        assert client.download("a") == 0
    assert sum(path.endswith(".a") for path in server.asked) == 1


def test_multiple_changes_to_target(client: Client) -> None:
    repository = client.repository
    for number in range(5):
        data = f"contents {number}".encode()
        repository.add_target("targets", "a", data)
        repository.publish("targets")
        assert client.download("a") == 0
        assert client.downloaded() == [data]
        assert client.roles()["targets"] == number + 2
    assert metadata_path("targets", 6) in repository.files

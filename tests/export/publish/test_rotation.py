"""Keys that change: devices that know any root that ever counted follow by themselves, and old keys count no more."""

import shutil
from pathlib import Path

import pytest

from edgekit.errors import KeyUnavailable, PublishError, Untrusted, UsageError
from export.publish import requests, rotation
from export.publish.channels import Wish
from export.publish.keys import Holder, Keyring, generate
from export.publish.repository import Change, Published
from export.publish.rotation import Edit
from tests.export.publish.publishers import Publisher, nobody, publisher, release


@pytest.fixture
def own(tmp_path: Path) -> Publisher:
    own = publisher(tmp_path)
    own.add("tiny", "1", channel="stable")
    return own


def keyids(own: Publisher, role: str) -> list[str]:
    root, targets = own.repository.state().root.signed, own.repository.state().targets.signed
    delegations = targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    return root.roles[role].keyids if role in root.roles else delegations.roles[role].keyids


def change(own: Publisher, edit: Edit) -> Published:
    state = own.repository.state()
    root = rotation.proposed(state, edit, now=own.now)
    rotation.sign_root(state.root.signed, root, own.keyring)
    return rotation.install(own.repository, root, own.keyring, now=own.now)


def rotate(own: Publisher, holder: Holder, role: str) -> tuple[str, str]:
    """Ids of the old key and the new one."""
    (old,) = keyids(own, role)
    new = generate(own.folders[0], holder, None)
    change(own, Edit(holder=holder, add=(new,), remove=frozenset({old})))
    return old, new.keyid


@pytest.mark.parametrize(
    ("holder", "roles"),
    [("root", ["root"]), ("releases", ["targets", "releases"]), ("timestamp", ["snapshot", "timestamp"])],
)
def test_a_rotated_key_counts_and_the_old_one_does_not(own: Publisher, holder: Holder, roles: list[str]) -> None:
    old, new = rotate(own, holder, roles[0])
    assert [keyids(own, role) for role in roles] == [[new]] * len(roles)
    for root in (1, 2):
        own.verify(root=root)
    for path in own.folders[0].glob(f"*{old[:12]}*"):
        path.unlink()
    own.add("tiny", "2", channel="stable")
    own.verify(root=1)
    signed = set(own.repository.state().role(roles[-1]).signatures)
    assert signed == ({old, new} if holder == "root" else {new})


def test_a_rotated_rollout_key_needs_the_key_of_releases_and_not_root(own: Publisher, tmp_path: Path) -> None:
    new = generate(tmp_path / "keys", "rollout", None)
    for path in (tmp_path / "keys").glob("root-*"):
        path.unlink()
    (old,) = keyids(own, "rollout")
    done = rotation.rotate_rollout(own.repository, [new], own.keyring, now=own.now)
    assert done.signed == ("targets", "rollout", "snapshot", "timestamp")
    assert keyids(own, "rollout") == [new.keyid]
    own.verify()
    for path in own.folders[0].glob(f"rollout-{old[:12]}*"):
        path.unlink()
    own.set("stable", Wish(pause=True))
    own.verify()


def test_the_thief_of_an_old_timestamp_key_is_not_believed_after_the_rotation(own: Publisher, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "keys", tmp_path / "stolen")
    shutil.copytree(own.repository.folder, tmp_path / "fork" / "repo")
    rotate(own, "timestamp", "timestamp")
    thief = Publisher(own.repository.open(tmp_path / "fork" / "repo"), [tmp_path / "stolen"])
    thief.publish(Change())
    shutil.copy(own.repository.folder / "metadata" / "2.root.json", thief.repository.folder / "metadata")
    with pytest.raises(Untrusted, match="timestamp was signed by 0/1 keys"):
        thief.verify(root=1)


def test_a_lost_key_can_be_replaced_though_it_cannot_sign_the_transition(own: Publisher) -> None:
    (old,) = keyids(own, "timestamp")
    for path in own.folders[0].glob(f"timestamp-{old[:12]}*"):
        path.unlink()
    new = generate(own.folders[0], "timestamp", None)
    change(own, Edit(holder="timestamp", add=(new,), remove=frozenset({old})))
    own.verify(root=1)


def test_two_of_three_root_keys_sign_and_one_does_not_suffice(tmp_path: Path) -> None:
    own = publisher(tmp_path, root_keys=3, root_threshold=2)
    root = sorted((tmp_path / "keys").glob("root-*.pem"))
    for number, pem in enumerate(root):  # each key in its own drawer
        for path in (pem, pem.with_suffix(".json")):
            (tmp_path / f"stick{number}").mkdir(exist_ok=True)
            shutil.move(path, tmp_path / f"stick{number}" / path.name)
    new = generate(tmp_path / "keys", "timestamp", None)
    gone = frozenset(keyids(own, "timestamp"))
    state = own.repository.state()
    proposed = rotation.proposed(state, Edit(holder="timestamp", add=(new,), remove=gone), now=own.now)
    one = Keyring.open([tmp_path / "keys", tmp_path / "stick0"], nobody)
    assert rotation.sign_root(state.root.signed, proposed, one) == 1
    with pytest.raises(PublishError, match="lacks 1 signatures"):
        rotation.install(own.repository, proposed, one, now=own.now)
    assert own.repository.tree.versions("root") == (1,)

    request = requests.parse(requests.for_root(state, proposed).to_bytes(), path="root.json")
    assert next(requests.said(request)) == "root, version 2, good until 2029-01-14; it lacks 1 signatures"
    signed, lacking = requests.sign(request, Keyring.open([tmp_path / "stick2"], nobody))
    assert lacking == 0
    online = Keyring.open([tmp_path / "keys"], nobody)
    rotation.install(own.repository, requests.root_of(signed), online, now=own.now)
    assert keyids(own, "timestamp") == [new.keyid]
    own.verify(root=1)
    with pytest.raises(PublishError, match="root 2 does not follow root 2"):
        rotation.install(own.repository, requests.root_of(signed), online, now=own.now)


def test_root_keys_come_and_go_and_so_does_their_number(own: Publisher) -> None:
    second, third = (generate(own.folders[0], "root", None) for _ in range(2))
    change(own, Edit(add=(second,)))
    change(own, Edit(add=(third,), threshold=2))
    first = keyids(own, "root")[0]
    change(own, Edit(remove=frozenset({first})))
    assert keyids(own, "root") == [second.keyid, third.keyid]
    for root in (1, 2, 3, 4):
        own.verify(root=root)
    with pytest.raises(PublishError, match="2 of 1 keys of root cannot be asked for"):
        change(own, Edit(remove=frozenset({second.keyid})))
    with pytest.raises(PublishError, match="is no key of root"):
        change(own, Edit(remove=frozenset({first})))


def test_a_release_is_signed_where_the_key_is(own: Publisher, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "keys", tmp_path / "stick")
    for path in (tmp_path / "keys").glob("releases-*"):
        path.unlink()
    new = release(own.repository, "tiny", "2")
    with pytest.raises(KeyUnavailable, match="releases must be signed by"):
        own.publish(Change(releases=(new,)))
    draft = own.repository.draft(Change(releases=(new,)), now=own.now)
    request = requests.for_releases(own.repository.state(), draft)
    lines = list(requests.said(request))
    assert lines[0].startswith("list of releases, version ")
    assert any("releases/tiny-2.json" in line for line in lines)
    _, lacking = requests.sign(request, own.keyring)
    assert lacking == 1
    signed, lacking = requests.sign(request, Keyring.open([tmp_path / "stick"], nobody))
    assert lacking == 0
    own.repository.publish(Change(), own.keyring, now=own.now, releases=requests.releases_of(signed))
    assert set(own.repository.releases()) == {"tiny-1", "tiny-2"}
    own.verify()
    with pytest.raises(PublishError, match="the repository has changed since"):
        own.repository.publish(Change(), own.keyring, now=own.now, releases=requests.releases_of(signed))


def test_a_signature_that_is_none_is_not_published(own: Publisher) -> None:
    new = release(own.repository, "tiny", "2")
    draft = own.repository.draft(Change(releases=(new,)), now=own.now)
    request = requests.for_releases(own.repository.state(), draft)
    signed, _ = requests.sign(request, own.keyring)
    forged = requests.releases_of(signed)
    forged.signed.targets["releases/tiny-2.json"].unrecognized_fields["custom"]["sequence"] = 9
    before = own.repository.state().timestamp.signed.version
    with pytest.raises(PublishError, match="a signature of releases is wrong"):
        own.repository.publish(Change(), own.keyring, now=own.now, releases=forged)
    assert own.repository.state().timestamp.signed.version == before


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b'{"format": 1}', b'{"format":2,"role":"root","metadata":"","delegator":""}', b" " * ((16 << 20) + 1)],
)
def test_what_is_no_request_is_not_signed(raw: bytes) -> None:
    with pytest.raises(UsageError):
        requests.parse(raw, path="request.json")

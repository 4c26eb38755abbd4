"""D10: a publish that is cut off anywhere leaves what was served before, and the next one gets through."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import PublishError
from edgekit.release.channel import RampStep
from export.publish import rotation
from export.publish.channels import Wish, changed
from export.publish.keys import Holder, generate
from export.publish.repository import Change, Repository
from export.publish.rotation import Edit
from tests.export.publish.cuts import every_cut
from tests.export.publish.publishers import DAY, Publisher, publisher, release

Act = Callable[[Publisher], object]


def offer(own: Publisher) -> None:
    """A release and who gets it, in one change."""
    if "tiny-2" in own.repository.releases():  # it was done but for the last step
        return
    new = release(own.repository, "tiny", "2")
    old = own.repository.channels()["stable"]
    wish = Wish(release="tiny-2", ramp=(RampStep(0, 5.0),))
    own.publish(Change(releases=(new,), channels=(changed("stable", old, wish, now=own.now, salt=""),)))


def refresh(own: Publisher) -> None:
    own.now += 25 * DAY
    own.publish(Change())


def files(own: Publisher) -> frozenset[tuple[str, bytes]]:
    """What a cut left, but for files with made-up names."""
    folder = own.repository.folder
    found = [path for path in folder.rglob("*.json") if not path.name.startswith(".")]
    return frozenset((path.relative_to(folder).as_posix(), path.read_bytes()) for path in found)


def rotate(holder: Holder) -> Act:
    def act(own: Publisher) -> None:
        key = generate(own.folders[0].with_name("new"), holder, None)
        own.folders.append(own.folders[0].with_name("new"))
        if holder == "rollout":
            rotation.rotate_rollout(own.repository, [key], own.keyring, now=own.now)
            return
        state = own.repository.state()
        role = {"releases": "targets"}.get(holder, holder)
        gone = frozenset(state.root.signed.roles[role].keyids)
        root = rotation.proposed(state, Edit(holder=holder, add=(key,), remove=gone), now=own.now)
        assert not rotation.sign_root(state.root.signed, root, own.keyring)
        rotation.install(own.repository, root, own.keyring, now=own.now)

    return act


ACTS: dict[str, Act] = {
    "offer": offer,
    "refresh": refresh,
    **{f"rotate {holder}": rotate(holder) for holder in ("root", "releases", "rollout", "timestamp")},
}


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that was written; without the disk's patience this is ten times as fast."""
    monkeypatch.setattr(os, "fsync", lambda _handle: None)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    own = publisher(tmp_path_factory.mktemp("before"))
    own.add("tiny", "1", channel="stable")
    return own


@pytest.mark.parametrize("name", ACTS)
def test_d10_a_publish_cut_off_anywhere_leaves_the_old_state_or_the_new(
    name: str, before: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> Publisher:
        shutil.rmtree(tmp_path / "own", ignore_errors=True)
        shutil.copytree(before.repository.folder.parent, tmp_path / "own")
        return Publisher(Repository.open(tmp_path / "own" / "repo"), [tmp_path / "own" / "keys"])

    own = fresh()

    def act() -> None:
        ACTS[name](own)

    old = before.repository.state().timestamp.signed.version
    seen, offered, looks = set(), set(), set()
    for _ in every_cut(monkeypatch, act):
        if (look := files(own)) in looks:
            own = fresh()
            continue
        looks.add(look)
        for root in own.repository.tree.versions("root"):  # devices that know the old root, and the new one
            seen.add(own.verify(root=root).versions["timestamp"])
        offered.add(own.repository.channels()["stable"].release)
        listed = set(own.repository.releases())
        assert own.repository.channels()["stable"].release in listed
        again = Publisher(own.repository, own.folders, own.now)
        ACTS[name](again)  # whoever comes back later gets through, whatever lies about
        again.verify()
        own = fresh()
    assert own.verify().versions["timestamp"] == old + 1
    assert old in seen
    assert seen <= {old, old + 1}
    assert offered <= {"tiny-1", "tiny-2"}


def test_d10_a_repository_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = iter(range(10_000))
    made: list[Path] = []

    def act() -> None:
        made.append(tmp_path / str(next(places)))
        publisher(made[-1])

    for _ in every_cut(monkeypatch, act):
        folder = made[-1] / "repo"
        if folder.exists():
            Repository.open(folder)
        else:
            with pytest.raises(PublishError, match="no repository"):
                Repository.open(folder)
    Repository.open(made[-1] / "repo")


def test_numbers_of_a_publish_that_was_cut_off_are_not_used_again(
    before: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(before.repository.folder.parent, tmp_path / "own")
    own = Publisher(Repository.open(tmp_path / "own" / "repo"), [tmp_path / "own" / "keys"])
    tree = own.repository.tree

    def fail(_raw: bytes) -> None:
        raise PublishError("the disk is gone")

    monkeypatch.setattr(tree, "show", fail)
    with pytest.raises(PublishError, match="disk is gone"):
        own.publish(Change())
    monkeypatch.undo()
    left = tree.versions("snapshot")[-1]
    own.publish(Change())
    assert own.repository.state().snapshot.signed.version == left + 1
    own.verify()

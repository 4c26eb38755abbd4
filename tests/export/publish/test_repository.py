"""Publishing: what devices see is the old state or the new one, and python-tuf's client accepts both."""

from pathlib import Path

import pytest

from edgekit.errors import KeyUnavailable, NotInRepository, PublishError
from edgekit.release.delta import Delta
from edgekit.release.names import release_target
from export.publish.channels import Wish
from export.publish.repository import Change, Repository
from export.publish.tree import TIMESTAMP
from tests.export.publish.publishers import DAY, Publisher, publisher, release


@pytest.fixture
def own(tmp_path: Path) -> Publisher:
    return publisher(tmp_path)


def test_a_new_repository_is_empty_and_a_client_accepts_it(own: Publisher) -> None:
    found = own.verify()
    assert (found.releases, found.channels, found.packs) == (0, 0, 0)
    assert set(found.versions.values()) == {1}
    assert own.repository.releases() == {}
    assert own.repository.next_sequence() == 1


def test_what_was_published_is_listed_and_can_be_read(own: Publisher) -> None:
    new = own.add("tiny", "1", channel="stable")
    found = own.verify()
    assert (found.releases, found.channels, found.packs) == (1, 1, 1)
    assert own.repository.releases() == {"tiny-1": new}
    assert own.repository.channels()["stable"].release == "tiny-1"
    assert own.repository.read_target(release_target("tiny-1")) == new.to_bytes()
    custom = own.repository.state().releases.signed.targets[release_target("tiny-1")].custom
    assert custom == {"kind": "model", "model": "tiny", "version": "1", "sequence": 1, "bytes": new.file_bytes}
    with pytest.raises(NotInRepository):
        own.repository.read_target("releases/other.json")


def test_a_release_can_be_found_by_whoever_opens_the_folder_later(own: Publisher) -> None:
    own.add("tiny", "1")
    assert list(Repository.open(own.repository.folder).releases()) == ["tiny-1"]


def test_everything_but_the_timestamp_stays_as_it_was(own: Publisher) -> None:
    def files() -> dict[str, bytes]:
        paths = own.repository.folder.rglob("*.*")
        return {str(p): p.read_bytes() for p in paths if p.is_file() and p.name != "timestamp.json"}

    own.add("tiny", "1", channel="stable")
    before = files()
    own.add("tiny", "2", channel="stable")
    own.now += 40 * DAY
    own.publish(Change())
    after = files()
    assert {path: after[path] for path in before} == before


def test_an_id_is_never_given_twice(own: Publisher) -> None:
    own.add("tiny", "1")
    with pytest.raises(PublishError, match="never given twice"):
        own.add("tiny", "1", text="others")
    own.publish(Change(withdraw=frozenset({"tiny-1"})))
    with pytest.raises(PublishError, match="never given twice"):
        own.add("tiny", "1")
    assert own.verify().releases == 0


def test_numbers_of_withdrawn_releases_are_not_given_again(own: Publisher) -> None:
    own.add("tiny", "1")
    own.publish(Change(withdraw=frozenset({"tiny-1"})))
    assert own.repository.next_sequence() == 2
    old = release(own.repository, "tiny", "2")
    own.add("tiny", "3")
    with pytest.raises(PublishError, match="not a new one"):
        own.publish(Change(releases=(old,)))


def test_a_channel_names_only_what_is_listed_and_above_the_floor(own: Publisher) -> None:
    own.add("tiny", "1", channel="stable")
    own.add("tiny", "2")
    with pytest.raises(PublishError, match="not listed"):
        own.set("stable", Wish(release="tiny-9"))
    with pytest.raises(PublishError, match="not listed"):
        own.publish(Change(withdraw=frozenset({"tiny-1"})))
    with pytest.raises(PublishError, match="below the floor"):
        own.publish(Change(floors={"tiny": 2}))
    own.set("stable", Wish(release="tiny-2"))
    with pytest.raises(PublishError, match=r"\(previous\), which is below the floor"):
        own.publish(Change(floors={"tiny": 2}))
    own.set("stable", Wish(release="tiny-2", forget_previous=True))
    own.publish(Change(floors={"tiny": 2}))
    with pytest.raises(PublishError, match="never fall"):
        own.publish(Change(floors={"tiny": 1}))
    assert own.repository.state().releases.signed.unrecognized_fields["x-edgekit-floors"] == {"tiny": 2}
    own.verify()


def test_a_delta_is_between_releases_that_are_listed(own: Publisher) -> None:
    new = own.add("tiny", "1")
    delta = Delta(format=1, base="tiny-0", release=new.id, packs=(), differences=())
    with pytest.raises(PublishError, match="needs tiny-0 to be listed"):
        own.publish(Change(deltas=(delta,)))


def test_a_channel_that_somebody_else_changed_meanwhile_is_not_overwritten(own: Publisher) -> None:
    own.add("tiny", "1", channel="stable")
    old = own.repository.channels()["stable"]
    own.set("stable", Wish(pause=True))
    with pytest.raises(PublishError, match="changed meanwhile"):
        own.publish(Change(channels=(old,)))


def test_refresh_signs_anew_what_is_due_and_nothing_else(own: Publisher) -> None:
    own.add("tiny", "1", channel="stable")
    own.now += 25 * DAY
    assert own.publish(Change()).signed == ("snapshot", "timestamp")
    own.now += 40 * DAY  # two thirds of 90 days are over for the rollout, not yet for the others
    assert own.publish(Change()).signed == ("rollout", "snapshot", "timestamp")
    own.now += 250 * DAY
    assert own.publish(Change()).signed == ("targets", "releases", "rollout", "snapshot", "timestamp")
    own.verify()


def test_what_is_due_and_cannot_be_signed_here_is_said(own: Publisher, tmp_path: Path) -> None:
    own.add("tiny", "1", channel="stable")
    for file in tmp_path.glob("keys/releases-*"):
        file.unlink()
    own.now += 300 * DAY
    done = own.publish(Change())
    assert done.signed == ("rollout", "snapshot", "timestamp")
    assert done.due == ("targets", "releases")
    with pytest.raises(KeyUnavailable, match="releases must be signed by 1 of the keys"):
        own.add("tiny", "2")


def test_a_clock_that_is_behind_is_noticed(own: Publisher) -> None:
    own.now -= 3600
    own.publish(Change())  # two machines may differ a little
    assert own.repository.state().timestamp.signed.unrecognized_fields["x-edgekit-issued"] == int(own.now + 3600)
    own.now -= 3 * DAY
    with pytest.raises(PublishError, match="set the clock"):
        own.publish(Change())


@pytest.mark.usefixtures("own")
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="not empty"):
        publisher(tmp_path)
    with pytest.raises(PublishError, match="no repository"):
        Repository.open(tmp_path)


@pytest.mark.parametrize("name", ["snapshot", "releases", "rollout", "targets"])
def test_damage_is_noticed_before_anything_is_built_on_it(own: Publisher, name: str) -> None:
    path = own.repository.folder / "metadata" / f"1.{name}.json"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"sig":"', b'"sig":"0'))
    with pytest.raises(PublishError, match="damaged"):
        Repository.open(own.repository.folder)
    path.unlink()
    with pytest.raises(PublishError, match="lacks"):
        Repository.open(own.repository.folder)
    path.write_bytes(raw)
    (own.repository.folder / TIMESTAMP).write_bytes(b"{}")
    with pytest.raises(PublishError, match="damaged"):
        Repository.open(own.repository.folder)

"""From a folder to what devices are offered."""

import shutil
import threading
from pathlib import Path

import pytest

from edgekit.errors import BundleError, CorruptBundle, KeyUnavailable, NotABundle, PublishError, UnsafePath
from edgekit.release.channel import RampStep
from edgekit.release.manifest import HealthFloor, Requires
from export.publish import pipeline, requests
from export.publish.channels import Wish
from export.publish.keys import Keyring
from export.publish.pipeline import Job, Outcome
from export.publish.repository import Repository
from tests.device_agent.bundles import ADAPTABLE, TINY, WARM, copy_to, edit, seal
from tests.export.publish.publishers import Publisher, nobody, publisher


class Silence:
    """Shows nothing."""

    def stage(self, title: str) -> None:
        """Nothing."""

    def advance(self, done: int, total: int) -> None:
        """Nothing."""


@pytest.fixture
def own(tmp_path: Path) -> Publisher:
    return publisher(tmp_path)


def version(folder: Path, number: str, *, source: Path = TINY) -> Path:
    """A copy of a bundle with another version, and one byte of its weights changed."""
    folder.mkdir()
    copy = copy_to(folder, source)
    data = copy / "model.onnx.data"
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= int(number)
    data.write_bytes(raw)
    seal(copy)
    edit(copy, lambda manifest: manifest.update(version=number))
    return copy


def publish(own: Publisher, job: Job) -> Outcome:
    return pipeline.publish(job, own.repository, own.keyring, Silence(), now=own.now)


def test_a_bundle_is_published_and_offered(own: Publisher) -> None:
    outcome = publish(own, Job(folder=TINY, channel="stable", ramp=(RampStep(0, 5.0),), note="first"))
    release = outcome.release
    assert {file.path for file in release.files} == {path.name for path in TINY.iterdir()}
    assert release.requires == Requires(onnxruntime="1.31")
    assert release.health == HealthFloor()
    assert outcome.channel == own.repository.channels()["stable"]
    assert (outcome.channel.release, outcome.channel.ramp) == (release.id, (RampStep(0, 5.0),))
    assert [group.base for group in outcome.groups] == [None]
    stored = sum({chunk.sha256: chunk.stored for _, _, chunk in release.chunks()}.values())
    assert outcome.groups[0].prediction.full_bytes == stored + len(release.to_bytes())
    found = own.verify()
    assert (found.releases, found.channels) == (1, 1)


def test_the_next_version_costs_a_difference(own: Publisher, tmp_path: Path) -> None:
    first = publish(own, Job(folder=TINY, channel="stable")).release
    outcome = publish(own, Job(folder=version(tmp_path / "2", "2"), channel="stable"))
    assert [delta.base for delta in outcome.deltas] == [first.id]
    near, far = outcome.groups
    assert near.base == first.id
    assert near.prediction.bytes < far.prediction.full_bytes / 4
    assert own.repository.channels()["stable"].previous == first.id
    assert own.verify().deltas == 1


def test_deltas_are_made_from_what_channels_name_or_what_was_said(own: Publisher, tmp_path: Path) -> None:
    ids = [
        publish(own, Job(folder=version(tmp_path / number, number), channel=channel)).release.id
        for number, channel in (("2", "a"), ("3", "b"), ("4", None))
    ]
    folder = version(tmp_path / "5", "5")
    outcome = publish(own, Job(folder=folder, channel="b", most_deltas=1))
    assert [delta.base for delta in outcome.deltas] == [ids[1]]
    outcome = publish(own, Job(folder=folder, bases=(ids[2], outcome.release.id)))
    assert outcome.was_there
    assert [delta.base for delta in outcome.deltas] == [ids[2]]
    outcome = publish(own, Job(folder=version(tmp_path / "6", "6"), most_deltas=0))
    assert outcome.deltas == ()
    with pytest.raises(PublishError, match="no release tiny-9"):
        publish(own, Job(folder=version(tmp_path / "7", "7"), bases=("tiny-9",)))


def test_an_adapter_is_a_release_of_its_own(own: Publisher) -> None:
    publish(own, Job(folder=ADAPTABLE, channel="stable"))
    outcome = publish(own, Job(folder=WARM, channel="warm"))
    assert (outcome.release.kind, outcome.release.base) == ("adapter", "tiny-llama")
    assert outcome.deltas == ()  # its base is no base of it in this sense
    assert own.verify().channels == 2


def test_the_same_content_again_is_published_already(own: Publisher) -> None:
    publish(own, Job(folder=TINY))
    outcome = publish(own, Job(folder=TINY, channel="stable"))
    assert outcome.was_there
    assert "releases" not in outcome.published.signed
    assert own.repository.channels()["stable"].release == outcome.release.id
    again = publish(own, Job(folder=TINY, channel="stable"))
    assert own.repository.channels()["stable"].version == 1
    assert again.channel is None


def test_other_content_under_the_same_name_is_refused(own: Publisher, tmp_path: Path) -> None:
    publish(own, Job(folder=TINY))
    other = version(tmp_path / "2", "2")
    edit(other, lambda manifest: manifest.update(version="1"))
    before = own.repository.state().timestamp.signed.version
    with pytest.raises(PublishError, match=r"other content.*another --version"):
        publish(own, Job(folder=other))
    with pytest.raises(PublishError, match="other conditions"):
        publish(own, Job(folder=TINY, health=HealthFloor(agreement=0.5)))
    assert own.repository.state().timestamp.signed.version == before


def test_what_it_must_show_and_what_it_needs_are_signed(own: Publisher) -> None:
    health, asked = HealthFloor(agreement=0.9, soak_s=10), Requires(machines=("aarch64",), memory_bytes=1 << 30)
    release = publish(own, Job(folder=TINY, health=health, requires=asked)).release
    assert release.health == health
    assert release.requires == Requires(machines=("aarch64",), memory_bytes=1 << 30, onnxruntime="1.31")
    assert publish(own, Job(folder=TINY, health=health, requires=asked)).was_there


def _outside(folder: Path) -> None:
    """Point a tensor's data out of the folder, at the same length."""
    model = folder / "model.onnx"
    raw = model.read_bytes()
    name = b"model.onnx.data"
    assert name in raw
    model.write_bytes(raw.replace(name, b"../../etc/passw"))
    seal(folder)


def _link(folder: Path) -> None:
    data = folder / "model.onnx.data"
    shutil.move(data, folder.parent / "elsewhere")
    data.symlink_to(folder.parent / "elsewhere")


def _flip(folder: Path) -> None:
    data = folder / "model.onnx.data"
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1
    data.write_bytes(raw)


def _empty(folder: Path) -> None:
    (folder / "bundle.json").unlink()


HOSTILE = {
    "b08 external data outside": (_outside, UnsafePath),
    "a link": (_link, UnsafePath),
    "a flipped bit": (_flip, CorruptBundle),
    "no bundle": (_empty, NotABundle),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_before_anybody_sees_it(own: Publisher, tmp_path: Path, name: str) -> None:
    damage, error = HOSTILE[name]
    folder = copy_to(tmp_path)
    damage(folder)
    with pytest.raises(BundleError) as caught:
        publish(own, Job(folder=folder, channel="stable"))
    assert isinstance(caught.value, error)
    assert own.verify().releases == 0


def test_without_the_key_nothing_is_read_and_there_is_a_way(own: Publisher, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "keys", tmp_path / "stick")
    for path in (tmp_path / "keys").glob("releases-*"):
        path.unlink()
    with pytest.raises(KeyUnavailable, match="releases is signed by 1 of the keys"):
        publish(own, Job(folder=TINY, channel="stable"))
    assert list((own.repository.folder / "packs").iterdir()) == []

    job = Job(folder=TINY, channel="stable")
    release, request = pipeline.prepare(job, own.repository, Silence(), now=own.now)
    assert own.verify().releases == 0
    signed, lacking = requests.sign(request, Keyring.open([tmp_path / "stick"], nobody))
    assert lacking == 0
    with pytest.raises(PublishError, match="does not list"):
        other = Job(folder=version(tmp_path / "2", "2"))
        pipeline.complete(other, signed, own.repository, own.keyring, Silence(), now=own.now)
    outcome = pipeline.complete(job, signed, own.repository, own.keyring, Silence(), now=own.now)
    assert outcome.release == release
    assert own.verify().releases == 1
    assert own.repository.channels()["stable"].release == release.id
    with pytest.raises(PublishError, match="nothing to sign"):
        pipeline.prepare(job, own.repository, Silence(), now=own.now)


def test_two_publishers_at_once_are_one_after_the_other(own: Publisher, tmp_path: Path) -> None:
    folders = [version(tmp_path / str(number), str(number)) for number in range(2, 6)]
    failed: list[BaseException] = []

    def work(folder: Path) -> None:
        mine = Publisher(Repository.open(own.repository.folder), own.folders)
        try:
            publish(mine, Job(folder=folder, channel=f"c{folder.parent.name}"))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test's own thread shows it
            failed.append(error)

    threads = [threading.Thread(target=work, args=[folder]) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = own.repository.releases().values()
    assert [release.sequence for release in found] == [1, 2, 3, 4]
    assert own.verify().channels == 4


def test_a_pause_is_not_ended_by_publishing_the_same_again(own: Publisher) -> None:
    publish(own, Job(folder=TINY, channel="stable"))
    own.set("stable", Wish(pause=True))
    publish(own, Job(folder=TINY, channel="stable"))
    assert own.repository.channels()["stable"].pause

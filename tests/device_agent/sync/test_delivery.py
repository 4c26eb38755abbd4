"""How the bytes of a release come, with the content rooms and a signed repository in memory."""

import json
import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from device_agent.releases.records import Ref
from device_agent.releases.store import Store
from device_agent.sync.delivery import Delivery, Parcel
from device_agent.sync.records import Progress, View
from device_agent.sync.trust import Trust
from edgekit.errors import CorruptRelease, NoSpace, NotInRepository
from edgekit.release.manifest import Release
from edgekit.release.names import delta_target, pack_path
from tests.device_agent.bundles import TINY
from tests.repositories import Repository

NOTES = "notes.bin"
CONTENT = bytes(range(256)) * 8_000


def files(version: str, notes: bytes) -> dict[str, bytes]:
    """The tiny model as a version, with some MB beside it."""
    found = {path.name: path.read_bytes() for path in TINY.iterdir()}
    manifest = json.loads(found["bundle.json"]) | {"version": version}
    return found | {"bundle.json": json.dumps(manifest).encode(), NOTES: notes}


class Setting:
    """A device without any release, a repository with two, and the differences between those."""

    def __init__(self, home: Path) -> None:
        self.made = Repository(now=time.time())
        self.one = self.made.add_release("tiny-llama", "1.0", files("1.0", CONTENT))
        self.two = self.made.add_release("tiny-llama", "2.0", files("2.0", CONTENT[:-1] + b"x"))
        self.made.add_delta(self.one, self.two)
        self.made.publish()
        self.source = self.made.source()
        self.trust = Trust(home / "sync" / "trust", self.made.provisioning(), clock=time.time, built=0.0)
        self.store = Store(home)
        (home / "sync" / "trust").mkdir(parents=True)
        self.view: View = self.trust.refresh(self.source)
        self.told: list[Progress] = []
        self.delivery = Delivery(self.store, self.trust, reserve_bytes=0, ticks=lambda: 0.0)

    def parcel(self, release: Release) -> Parcel:
        listed = self.view.releases[release.id]
        ref = Ref(id=release.id, kind="model", sequence=listed.sequence, sha256=listed.manifest_sha256)
        return Parcel(channel="stable", ref=ref, release=release, manifest=release.to_bytes())

    def bring(self, release: Release) -> int:
        parcel = self.parcel(release)
        receipt = self.delivery.fetch(parcel, self.view, self.source, tell=self.told.append, stop=Event())
        self.delivery.put_away(parcel, tell=self.told.append)
        return receipt.moved_bytes


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_a_release_comes_whole_and_is_told_on_its_way(setting: Setting) -> None:
    parcel = setting.parcel(setting.one)
    assert not setting.delivery.is_here(parcel.ref)
    moved = setting.bring(setting.one)
    assert moved == sum(pack.size for pack in setting.one.packs)
    assert setting.delivery.is_here(parcel.ref)
    (installed,) = setting.store.installed()
    assert (installed.folder / NOTES).read_bytes() == CONTENT
    assert setting.told[-1].phase == "verifying"
    fetching = [each for each in setting.told if each.phase == "fetching"]
    assert fetching[-1].done_bytes == fetching[-1].total_bytes == moved


def test_differences_from_what_is_here_are_used(setting: Setting) -> None:
    setting.bring(setting.one)
    cost = setting.delivery.cost(setting.two, setting.view, setting.source)
    assert 0 < cost.fetch_bytes < 5_000
    assert setting.bring(setting.two) == cost.fetch_bytes


@pytest.mark.parametrize("fault", ["gone", "wrong"])
def test_differences_that_cannot_be_had_cost_bytes_and_nothing_else(setting: Setting, fault: str) -> None:
    setting.bring(setting.one)
    path = delta_target(setting.one.id, setting.two.id)
    name = next(one for one in setting.made.files if one.endswith(path.rpartition("/")[2]))
    if fault == "gone":
        del setting.made.files[name]
    else:
        setting.made.files[name] = b"{}"
    assert 5_000 < setting.bring(setting.two) < setting.two.file_bytes
    assert setting.delivery.is_here(setting.parcel(setting.two).ref)


def test_g05_a_copy_for_other_devices_says_which_release_it_builds_on(setting: Setting) -> None:
    for pack in setting.two.packs:
        setting.made.files.pop(pack_path(pack.sha256))
    with pytest.raises(NotInRepository, match=r"for devices with tiny-llama-1\.0, which is not installed here"):
        setting.bring(setting.two)


def test_a_pack_that_nobody_has_is_not_blamed_on_the_device(setting: Setting) -> None:
    setting.view = replace(setting.view, deltas=frozenset())
    for pack in setting.two.packs:
        setting.made.files.pop(pack_path(pack.sha256))
    with pytest.raises(NotInRepository) as caught:
        setting.bring(setting.two)
    assert "for devices with" not in str(caught.value)


def test_the_reserve_of_the_disk_is_kept(setting: Setting) -> None:
    setting.delivery = Delivery(setting.store, setting.trust, reserve_bytes=1 << 60)
    with pytest.raises(NoSpace):
        setting.bring(setting.one)
    assert setting.source.asked[-1].path.startswith(("metadata/", "targets/")), "not one byte of content was asked for"


def test_what_changes_between_staging_and_sealing_is_found(setting: Setting) -> None:
    parcel = setting.parcel(setting.one)
    setting.delivery.fetch(parcel, setting.view, setting.source, tell=setting.told.append, stop=Event())
    (setting.store.staging(parcel.ref) / "bundle.json").write_bytes(b"[]")
    with pytest.raises(CorruptRelease):
        setting.delivery.put_away(parcel, tell=setting.told.append)
    assert not setting.delivery.is_here(parcel.ref)

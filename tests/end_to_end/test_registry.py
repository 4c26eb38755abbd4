"""A fleet whose repository is in an OCI registry: Debian's docker-registry, for real."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_agent.releases.store import Store
from device_agent.sync.enrolling import trust_on_first_use
from device_agent.sync.transport.oci import OciSource
from device_agent.sync.transport.throttle import PIECE_BYTES
from edgekit.errors import CorruptRelease, NotInRepository, Unreachable, Untrusted
from edgekit.release import oci
from edgekit.release.oci import Reference, parse_reference
from export.publish.channels import Wish
from export.publish.oci import Pushed, push
from export.publish.repository import Change
from tests.contents import Never
from tests.device_agent.bundles import edit, seal
from tests.end_to_end.offline import BALLAST, BALLAST_BYTES, Device, Works, bundle, works
from tests.end_to_end.registries import Storage, Tool
from tests.export.publish.publishers import NOW
from tests.servers import nginx, registry

pytestmark = pytest.mark.programs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Storage]]:
    folder = tmp_path_factory.mktemp("registry")
    with registry(folder) as host:
        yield host, Storage(folder)


@dataclass
class Shop:
    """A publisher and the tag that devices follow, in a repository of the registry that no other test uses."""

    works: Works
    reference: Reference
    storage: Storage

    @property
    def address(self) -> str:
        return f"oci://{self.reference}"

    def push(self, version: int) -> Pushed:
        return push(self.works.publisher.repository, self.works.releases[version], self.reference)

    def sold(self, version: int) -> Device:
        """A device that has a version."""
        device = self.works.device("till")
        self.push(version)
        assert device.sync(self.address).ending == "installed"
        return device


def opened(server: tuple[str, Storage], folder: Path) -> Shop:
    host, storage = server
    made = works(folder)
    made.publish(1)
    name = hashlib.sha256(bytes(folder)).hexdigest()[:12]
    return Shop(made, parse_reference(f"{host}/{name}/model:stable"), storage)


@pytest.fixture
def shop(server: tuple[str, Storage], tmp_path: Path) -> Shop:
    """With version 1, which is not pushed yet."""
    return opened(server, tmp_path / "works")


@pytest.fixture(scope="module")
def stocked(server: tuple[str, Storage], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """With version 1 in the registry, for tests that change nothing."""
    found = opened(server, tmp_path_factory.mktemp("stocked") / "works")
    found.push(1)
    return found


def runs(device: Device, version: int) -> bool:
    """Whether a version serves, whole."""
    return device.active == f"tiny-llama-{version}.0" and device.ballast()[0] == version


# --- from one version to the next -------------------------------------------------------------


def test_an_update_over_a_registry_costs_what_it_costs_over_http(shop: Shop, tmp_path: Path) -> None:
    device, other = shop.sold(1), shop.works.device("other")
    with nginx(shop.works.repo, tmp_path / "nginx") as url:
        other.sync(url)
        shop.works.publish(2, since=[1])
        shop.push(2)
        by_registry, by_http = device.sync(shop.address), other.sync(url)
    assert (by_registry.ending, by_http.ending) == ("installed", "installed")
    assert runs(device, 2)
    assert by_registry.moved_bytes == by_http.moved_bytes < BALLAST_BYTES / 100


def test_a_push_sends_what_is_new_and_nothing_else(shop: Shop) -> None:
    first = shop.push(1)
    there = shop.storage.blobs(shop.reference.name)
    assert (first.sent_blobs, first.present_bytes) == (len(there), 0)
    assert shop.push(1).sent_blobs == 0
    shop.works.publisher.publish(Change())
    refreshed = shop.push(1)
    assert 0 < refreshed.sent_bytes < 20_000
    there = shop.storage.blobs(shop.reference.name)
    shop.works.publish(2, since=[1])
    second = shop.push(2)
    new = shop.storage.blobs(shop.reference.name) - there
    assert second.sent_blobs == len(new)
    assert BALLAST_BYTES < second.sent_bytes < BALLAST_BYTES + 50_000
    one, two = ({file.sha256 for file in shop.works.releases[version].files} for version in (1, 2))
    assert new & two == two - one


def test_devices_see_a_refresh_once_it_is_pushed(shop: Shop) -> None:
    shop.push(1)
    device = shop.works.device("till")
    shop.works.publisher.now = device.now = NOW + 31 * 86_400
    shop.works.publisher.publish(Change())
    outcome = device.sync(shop.address)
    assert (outcome.ending, outcome.exit_code) == ("refused", Untrusted.exit_code)
    shop.push(1)
    assert device.sync(shop.address).ending == "installed"


def test_who_is_told_to_go_back_finds_the_release_before(shop: Shop) -> None:
    shop.push(1)
    shop.works.publish(2)
    shop.push(2)
    shop.works.publisher.set("stable", Wish(abort_to=shop.works.releases[1].id))
    shop.push(2)
    late = shop.works.device("late")
    assert late.sync(shop.address).ending == "installed"
    assert runs(late, 1)
    tool = Tool(shop.reference)
    assert tool.tags() == ["stable", "tiny-llama-1.0"]
    beside = {layer["digest"] for layer in tool.manifest("tiny-llama-1.0")["layers"]}
    assert {f"sha256:{file.sha256}" for file in shop.works.releases[1].files if file.size} <= beside


def test_a_release_of_many_files_comes_whole_empty_ones_and_twins_too(shop: Shop) -> None:
    folder = bundle(shop.works.folder / "many", 3)
    names = [f"extra-{i}.json" for i in range(8)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(b"" if i < 2 else b"twin" if i < 4 else bytes([i]))

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"] += [{"path": name, "size": 0, "sha256": "0" * 64} for name in names]

    edit(folder, change)
    seal(folder)
    shop.works.publish(3, folder=folder)
    shop.push(3)
    device = shop.works.device("till")
    assert device.sync(shop.address).ending == "installed"
    [serving] = Store(device.home).serving()
    assert {name: (serving.folder / name).read_bytes() for name in names} == {
        name: (folder / name).read_bytes() for name in names
    }


def test_a_device_without_keys_believes_the_first_ones_of_a_registry(stocked: Shop, tmp_path: Path) -> None:
    found = trust_on_first_use([stocked.address], [], stop=Never(), clock=lambda: NOW)
    assert found.provisioning.repositories == (stocked.address,)
    device = Device(tmp_path / "new", found.provisioning)
    assert device.sync(stocked.address).ending == "installed"


# --- bad lines, and bad registries ------------------------------------------------------------


PIECES = (2 << 20) // PIECE_BYTES
"""A line lasts for so many: two chunks."""


class Line:
    """To a registry: dies after so many pieces. Knows what was read, and where reads of the ballast began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.read_bytes = 0
        self.began: list[int] = []
        stream = OciSource.stream

        def read(source: OciSource, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
            if size == BALLAST_BYTES and self.left:
                self.began.append(start)
            for piece in stream(source, path, start=start, length=length, size=size):
                if not self.left:
                    raise Unreachable("the line is gone")
                self.left -= 1
                self.read_bytes += len(piece)
                yield piece

        monkeypatch.setattr(OciSource, "stream", read)


def test_what_was_cut_goes_on_in_the_middle_of_a_blob(
    stocked: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path / "till", stocked.works.device("any").identity.provisioning)
    line, cuts = Line(monkeypatch), 0
    line.left = PIECES
    while (outcome := device.sync(stocked.address)).ending != "installed":
        assert (outcome.ending, outcome.exit_code) == ("failed", Unreachable.exit_code)
        line.left = PIECES
        cuts += 1
        assert cuts < 100
    assert runs(device, 1)
    assert len(line.began) > 1
    assert sorted(set(line.began)) == line.began  # never again from the beginning
    assert line.read_bytes <= stocked.works.releases[1].file_bytes + cuts * (1 << 20)


def test_a_registry_that_lies_is_refused_and_what_serves_stays(shop: Shop) -> None:
    device = shop.sold(1)
    shop.works.publish(2)
    shop.push(2)
    layers = {layer["annotations"][oci.FILE_PATH]: layer for layer in Tool(shop.reference).manifest()["layers"]}
    for path, at in ((".edgekit/metadata/timestamp.json", 40), (BALLAST, 100_000)):
        blob = shop.storage.path(layers[path]["digest"])
        honest = blob.read_bytes()
        blob.write_bytes(honest[:at] + bytes([honest[at] ^ 1]) + honest[at + 1 :])
        outcome = device.sync(shop.address)
        blob.write_bytes(honest)
        expected = CorruptRelease if path == BALLAST else Untrusted
        assert (outcome.ending, outcome.exit_code) == ("refused", expected.exit_code)
        assert runs(device, 1)
    assert device.sync(shop.address).ending == "installed"
    assert runs(device, 2)


def test_a_push_that_is_cut_off_changes_nothing_and_one_more_makes_good_what_was_lost(shop: Shop) -> None:
    device = shop.sold(1)
    shop.works.publish(2)
    before = Tool(shop.reference).get("manifests/stable")

    def tell(done: int, total: int) -> None:
        if done > total * 0.9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(shop.works.publisher.repository, shop.works.releases[2], shop.reference, tell=tell)
    assert Tool(shop.reference).get("manifests/stable") == before
    assert device.sync(shop.address).ending == "current"
    shop.push(2)
    layers = {layer["annotations"][oci.FILE_PATH]: layer for layer in Tool(shop.reference).manifest()["layers"]}
    shop.storage.path(layers[BALLAST]["digest"]).unlink()
    outcome = device.sync(shop.address)
    assert (outcome.ending, outcome.exit_code) == ("failed", NotInRepository.exit_code)
    assert runs(device, 1)
    shop.push(2)
    assert device.sync(shop.address).ending == "installed"


# --- other tools ------------------------------------------------------------------------------


def test_plain_tools_get_the_files_back(stocked: Shop) -> None:
    tool, bundle = Tool(stocked.reference), stocked.works.folder / "bundle-1" / "bundle"
    for key in ("org.cncf.model.filepath", "org.opencontainers.image.title"):
        found = tool.extracted(key)
        assert {path: data for path, data in found.items() if not path.startswith(".")} == {
            path.name: path.read_bytes() for path in bundle.iterdir() if path.stat().st_size
        }
        assert {path for path in found if path.startswith(".")} >= {
            ".edgekit/metadata/timestamp.json",
            ".edgekit/metadata/1.root.json",
        }


def test_the_artifact_is_what_modelpack_says(stocked: Shop) -> None:
    """model-spec v1: docs/spec.md, docs/config.md and its JSON schema, docs/annotations.md."""
    tool = Tool(stocked.reference)
    manifest = tool.manifest()
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, "application/vnd.oci.image.manifest.v1+json")
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    types = {layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in manifest["layers"]}
    assert types["model.onnx.data"] == "application/vnd.cncf.model.weight.v1.raw"
    assert types["bundle.json"] == "application/vnd.cncf.model.weight.config.v1.raw"
    # ModelPack's own modctl goes through all layers, and stops at a type with another end.
    assert {media_type.rpartition(".")[2] for media_type in types.values()} == {"raw"}
    config = tool.blob(manifest["config"])
    found = json.loads(config)
    assert found.keys() == {"descriptor", "config", "modelfs"}
    assert found["descriptor"].keys() <= {"name", "version", "family", "licenses"}
    assert (found["descriptor"]["name"], found["descriptor"]["version"]) == ("tiny-llama", "1.0")
    assert found["config"].keys() <= {"architecture", "format", "precision", "quantization"}
    assert all(isinstance(value, str) for value in found["config"].values())
    assert found["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]}

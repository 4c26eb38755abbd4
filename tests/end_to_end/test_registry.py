"""A fleet whose repository is in an OCI registry: Debian's docker-registry, for real."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.release.oci import parse_reference
from export.publish.oci import Pushed, push
from tests.end_to_end.offline import Works, works
from tests.servers import registry

pytestmark = pytest.mark.programs


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def own(tmp_path: Path) -> Works:
    made = works(tmp_path)
    made.publish(1)
    return made


@pytest.fixture
def tag(host: str, tmp_path: Path) -> str:
    """A tag of a repository that no other test uses."""
    return f"{host}/{hashlib.sha256(bytes(tmp_path)).hexdigest()[:12]}/model:stable"


def pushed(own: Works, tag: str, version: int) -> Pushed:
    return push(own.publisher.repository, own.releases[version], parse_reference(tag))


def test_a_device_follows_a_tag(own: Works, tag: str) -> None:
    device = own.device("till")
    pushed(own, tag, 1)
    outcome = device.sync(f"oci://{tag}")
    assert outcome.ending == "installed", outcome
    assert device.active == "tiny-llama-1.0"
    own.publish(2, since=[1])
    found = pushed(own, tag, 2)
    print(found)
    outcome = device.sync(f"oci://{tag}")
    print(outcome)
    assert outcome.ending == "installed", outcome
    assert device.ballast()[0] == 2

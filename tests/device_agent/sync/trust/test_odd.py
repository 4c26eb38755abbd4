"""H: metadata that the right keys signed, and that is odd all the same: refused or accepted, and never in the way.

Keys may be stolen, and signing programs have faults. Whatever the owner's next honest version says counts again.
"""

import contextlib
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from edgekit.errors import EdgekitError, SyncError
from edgekit.release.names import channel_target, release_target
from tests.device_agent.sync.trust.devices import Device, published
from tests.repositories import Repository, metadata_path

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1 << 31, 1 << 63, 1 << 70),
    *("", "x", "9" * 5000, "a" * 10_000, "\u0000", "../../x", "*", "[", "[!", "1.0.0", "99999999999999999999.1.1"),
    *("2026-13-45T99:99:99Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"),
    *([], {}, [[]], {"": ""}, [1, 2], {"sha256": "0" * 64}, list(range(1000)), {str(i): {} for i in range(1000)}),
)
PUBLISHED = published()
ROLES = ("root", "timestamp", "snapshot", "targets", "releases", "rollout")
Place = tuple[str | int, ...]


def _places(value: Any, above: Place = ()) -> Iterator[Place]:
    children: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    for name, child in children:
        yield (*above, name)
        yield from _places(child, (*above, name))


def _signed_anew(repository: Repository, role: str, signed: dict[str, Any]) -> None:
    """Put it where the role's newest version is, and say its digest wherever that is said."""
    path = metadata_path(role, repository.role(role).version)
    canonical = str(encode_canonical(signed)).encode()
    signatures = [key.sign(canonical).to_dict() for key in repository.keys[role]]
    repository.files[path] = raw = json.dumps({"signatures": signatures, "signed": signed}).encode()
    if role in ("targets", "releases", "rollout"):
        repository._list(role)
        repository.refresh()
    elif role == "snapshot":
        repository.timestamp.snapshot_meta.length = repository.timestamp.snapshot_meta.hashes = None
        repository.put("timestamp")
    repository.files[path] = raw


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), role=st.sampled_from(ROLES))
def test_h_odd_metadata_by_the_right_keys_is_no_end_of_anything(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, role: str
) -> None:
    device = Device(tmp_path_factory.mktemp("device"), PUBLISHED.copy())
    device.refresh()
    odd = PUBLISHED.copy()
    odd.root.version += role == "root"
    odd.put("root")
    odd.publish(*({role} & {"targets", "releases", "rollout"}))
    signed = json.loads(odd.files[metadata_path(role, odd.role(role).version)])["signed"]
    *above, last = data.draw(st.sampled_from(sorted(_places(signed), key=repr)))
    holder = signed
    for name in above:
        holder = holder[name]
    holder[last] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    _signed_anew(odd, role, signed)
    with contextlib.suppress(SyncError):
        view = device.refresh(odd.source())
        for path in (*map(release_target, view.releases), *map(channel_target, view.channels)):
            with contextlib.suppress(SyncError):
                device.trust().target(path, odd.source(), limit=1 << 20)
    with contextlib.suppress(EdgekitError):
        assert device.last() is not None

"""A11: too much of everything (research/sync.md, section 4)."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from device_agent.sync.trust import wire
from edgekit.errors import CorruptRelease, Untrusted
from edgekit.release.names import release_target
from tests.device_agent.sync.trust.devices import Device, in_place_of
from tests.imports import ROOT
from tests.repositories import Repository, metadata_path


def _endless(raw: bytes) -> bytes:
    return raw + b" " * wire.MAX_METADATA_BYTES


def _many_signatures(raw: bytes) -> bytes:
    found = json.loads(raw)
    found["signatures"] = [{"keyid": f"{i:064x}", "sig": "00"} for i in range(1_000)]
    return json.dumps(found).encode()


def _deep(raw: bytes) -> bytes:
    return raw.replace(b'"signed":{', b'"signed":{"x":' + b"[" * 5_000 + b"]" * 5_000 + b",", 1)


def _rather_deep(raw: bytes) -> bytes:
    return raw.replace(b'"signed":{', b'"signed":{"x":' + b"[" * 30 + b"]" * 30 + b",", 1)


def _wide(raw: bytes) -> bytes:
    return raw.replace(b'"signed":{', b'"signed":{"x":[' + b"[]," * 3_000 + b"[]],", 1)


def _nan(raw: bytes) -> bytes:
    return raw.replace(b'"signed":{', b'"signed":{"x":NaN,', 1)


def _infinite(raw: bytes) -> bytes:
    return raw.replace(b'"signed":{', b'"signed":{"x":-Infinity,', 1)


def _long_number(raw: bytes) -> bytes:
    return raw.replace(b'"signed":{', b'"signed":{"x":' + b"9" * 10_000 + b",", 1)


def _twice(raw: bytes) -> bytes:
    return raw.replace(b'"version":', b'"version":99,"version":', 1)


def _utf16(raw: bytes) -> bytes:
    return raw.decode().encode("utf-16")


def _html(_raw: bytes) -> bytes:
    return b"<!DOCTYPE html><title>Log in to the hotel's network</title>"


def _nothing(_raw: bytes) -> bytes:
    return b""


def _list(raw: bytes) -> bytes:
    return b"[" + raw + b"]"


HOSTILE: list[Callable[[bytes], bytes]] = [
    *(_endless, _many_signatures, _deep, _rather_deep, _nan, _infinite, _long_number, _twice, _utf16, _html, _nothing),
    _list,
]


@pytest.mark.parametrize("spoil", HOSTILE)
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "releases"])
def test_a11_hostile_metadata(device: Device, role: str, spoil: Callable[[bytes], bytes]) -> None:
    repository = device.repository
    if role == "root":
        repository.root.version += 1
        repository.put("root")
    repository.publish("targets", "releases")
    path = metadata_path(role, repository.role(role).version)
    source = in_place_of(repository, path, spoil(repository.files[path]))
    device.refuses(Untrusted, source, progress=role not in ("root", "timestamp"))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_many_signatures, "signatures"),
        (_deep, "no plain JSON|deeper"),
        (_rather_deep, "nested deeper than 24"),
        (_nan, "NaN is no JSON"),
        (_twice, "a name comes twice"),
        (_html, "no plain JSON"),
        (_list, "not signed metadata"),
    ],
)
def test_a11_is_refused_before_python_tuf_sees_it(spoil: Callable[[bytes], bytes], why: str) -> None:
    raw = Repository().files["metadata/timestamp.json"]
    wire.check(raw, name="timestamp.json")
    with pytest.raises(Untrusted, match=why):
        wire.check(spoil(raw), name="timestamp.json")


def test_a11_the_number_of_parts_is_bounded() -> None:
    raw = Repository().files["metadata/timestamp.json"]
    with pytest.raises(Untrusted, match="more than 60,000 parts"):
        wire.check(raw.replace(b'"signed":{', b'"signed":{"x":[' + b"[]," * 60_000 + b"[]],", 1), name="timestamp.json")
    wire.check(_wide(raw), name="timestamp.json")


@pytest.mark.parametrize(
    ("role", "limit"), [("snapshot", 2 << 20), ("targets", 2 << 20), ("releases", 2 << 20), ("rollout", 2 << 20)]
)
def test_a11_no_more_is_asked_for_than_a_role_may_have(device: Device, role: str, limit: int) -> None:
    """Also where the snapshot or the timestamp says that it is larger."""
    repository = device.repository
    repository.publish("targets", "releases", "rollout")
    if role == "snapshot":
        repository.timestamp.snapshot_meta.length = 10 << 30
    else:
        repository.snapshot.meta[f"{role}.json"].length = 10 << 30
        repository._seal()
    repository.put("timestamp")
    limits: dict[str, int] = {}
    read = device.source.read

    def asked(path: str, *, limit: int) -> bytes:
        limits[path] = limit
        return read(path, limit=limit)

    device.source.read = asked  # type: ignore[method-assign]
    device.refuses(Untrusted, progress=True)
    assert limits[metadata_path(role, repository.role(role).version)] == limit
    assert limits["metadata/timestamp.json"] == 16 << 10
    assert limits["metadata/3.root.json"] == 512 << 10


def test_a11_a_target_is_not_asked_for_if_it_is_larger_than_it_may_be(device: Device) -> None:
    repository = device.repository
    repository.releases.targets[release_target("tiny-1.0")].length = 10 << 30
    repository.publish()
    device.refresh()
    asked = len(device.source.asked)
    with pytest.raises(CorruptRelease, match="larger than 67,108,864 bytes"):
        device.trust().target(release_target("tiny-1.0"), device.source, limit=64 << 20)
    assert len(device.source.asked) == asked


PROGRAM = """
import resource, sys, tempfile
from pathlib import Path
from edgekit.errors import Untrusted
from device_agent.sync.trust import wire
from tests.device_agent.sync.trust.devices import Device, in_place_of, published
from tests.repositories import metadata_path

def fill(pattern, most):
    return pattern * (most // len(pattern))

SHAPES = [b"[],", b"{},", b'"a",', b"1e1,", b"[[[", b'{"a":', b"1,", b"9", b" ", bytes([0xF0, 0x9F, 0x98, 0x80])]
most = {"root": wire.MAX_ROOT_BYTES, "timestamp": wire.MAX_TIMESTAMP_BYTES}
repository = published()
device = Device(Path(tempfile.mkdtemp(dir=sys.argv[1])), repository)
device.refresh()
repository.root.version += 1
repository.put("root")
repository.publish("targets", "releases", "rollout")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
for role in ("root", "timestamp", "snapshot", "targets", "releases"):
    path = metadata_path(role, repository.role(role).version)
    head, tail = b'{"signatures":[],"signed":{"x":[', b'0]}}'
    for shape in SHAPES:
        raw = head + fill(shape, most.get(role, wire.MAX_METADATA_BYTES) - len(head) - len(tail)) + tail
        try:
            device.refresh(in_place_of(repository, path, raw))
        except Untrusted:
            continue
        raise SystemExit(f"{role} {shape} was believed")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say what a process took at most")
def test_a11_the_worst_that_fits_takes_less_than_64_mib(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bounded")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(done.stdout) < 64 << 20

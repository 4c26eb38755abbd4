"""What is pushed into a registry, and how the publisher takes what a registry answers."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest

from edgekit.errors import PublishError, UsageError
from edgekit.release import oci
from edgekit.release.manifest import Chunk, ReleaseFile
from edgekit.release.oci import parse_reference
from export.publish.channels import Wish
from export.publish.oci import Pushed, offered_by, push
from export.publish.registry import Credentials
from export.publish.repository import Change
from tests.export.publish.publishers import Publisher, publisher, release

TILL = Credentials(user="till", password="open sesame")


@dataclass
class Registry:
    """Takes everything, and answers what `answers` has for a method instead: status, fields and body."""

    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, bytes] = field(default_factory=dict)
    said: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if method in self.answers:
            return self.answers[method]
        if method == "HEAD":
            return (200 if path.rpartition(":")[2] in self.blobs else 404), {}, b""
        if method == "POST":
            return 202, {"Location": "/v2/shop/blobs/uploads/1?state=x"}, b""
        if "/manifests/" in path:
            self.tags[path.rpartition("/")[2]] = body
        else:
            self.blobs[path.rpartition("%3A")[2]] = body
        return 201, {}, b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        registry = self.server.registry  # type: ignore[attr-defined]
        registry.said.append((self.command, self.headers.get("Authorization")))
        status, fields, data = registry.answer(self.command, self.path, body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_HEAD(self) -> None:
        self._any()

    def do_POST(self) -> None:
        self._any()

    def do_PUT(self) -> None:
        self._any()


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    found = Registry(port=server.server_address[1])
    server.registry = found  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def own(tmp_path: Path) -> Publisher:
    """With an adapter: bundles must be whole for their facts to be read."""
    made = publisher(tmp_path)
    adapter(made, "1")
    return made


def adapter(own: Publisher, version: str, *, name: str = "tone") -> None:
    new = release(own.repository, name, version, kind="adapter")
    own.publish(Change(releases=(new,)))
    own.set("tone", Wish(release=new.id))


def pushed(own: Publisher, registry: Registry, name: str = "tone-1", *, tag: str = "stable") -> Pushed:
    reference = parse_reference(f"127.0.0.1:{registry.port}/shop:{tag}")
    return push(own.repository, own.repository.releases()[name], reference, credentials=TILL)


# --- what is there afterwards -----------------------------------------------------------------


def test_everything_that_a_manifest_names_is_there(own: Publisher, registry: Registry) -> None:
    found = pushed(own, registry)
    manifest = json.loads(registry.tags["stable"])
    assert found.digest == f"sha256:{hashlib.sha256(registry.tags['stable']).hexdigest()}"
    named = {part["digest"].removeprefix("sha256:"): part["size"] for part in (*manifest["layers"], manifest["config"])}
    assert {digest: len(data) for digest, data in registry.blobs.items()} == named
    assert all(hashlib.sha256(data).hexdigest() == digest for digest, data in registry.blobs.items())
    assert registry.said[-1][0] == "PUT"


def test_what_channels_name_beside_goes_under_tags_of_its_own_and_first(own: Publisher, registry: Registry) -> None:
    adapter(own, "2")
    own.set("tone", Wish(abort_to="tone-1"))
    adapter(own, "1+cpu", name="voice")
    own.set("other", Wish(release="tone-2"))
    pushed(own, registry, "voice-1+cpu")
    assert list(registry.tags) == ["tone-1", "tone-2", "stable"]
    paths = {layer["annotations"][oci.FILE_PATH] for layer in json.loads(registry.tags["stable"])["layers"]}
    assert sum(path.startswith(".edgekit/targets/releases/") for path in paths) == 3
    registry.tags.clear()
    pushed(own, registry, "tone-2", tag="tone-2")
    assert list(registry.tags) == ["tone-1", "voice-1_cpu", "tone-2"]


def test_more_files_than_registries_take_are_refused_before_anything_is_sent(
    own: Publisher, registry: Registry
) -> None:
    old = own.repository.releases()["tone-1"]
    (entry,) = old.files
    many = (ReleaseFile(f"{i:05}-{'x' * 190}", entry.size, entry.sha256, entry.chunks) for i in range(9_000))
    new = msgspec.structs.replace(old, version="2", sequence=own.repository.next_sequence(), files=(entry, *many))
    own.publish(Change(releases=(new,)))
    with pytest.raises(PublishError, match=r"tone-2 has 9,001 files, .* registries take 4,194,304"):
        pushed(own, registry, "tone-2")
    assert registry.said == []


def test_an_empty_file_is_no_layer(own: Publisher, registry: Registry) -> None:
    old = own.repository.releases()["tone-1"]
    empty = ReleaseFile("empty", 0, hashlib.sha256(b"").hexdigest(), tuple[Chunk, ...]())
    new = msgspec.structs.replace(old, version="2", sequence=own.repository.next_sequence(), files=(*old.files, empty))
    own.publish(Change(releases=(new,)))
    pushed(own, registry, "tone-2")
    paths = [layer["annotations"][oci.FILE_PATH] for layer in json.loads(registry.tags["stable"])["layers"]]
    assert [path for path in paths if not path.startswith(".")] == ["adapter.json"]


@pytest.mark.parametrize(
    ("tag", "channel", "expected"),
    [("stable", None, "m-2"), ("beta", None, "m-3"), ("1.0", "beta", "m-3"), ("beta", "stable", "m-2")],
)
def test_a_tag_holds_what_its_channel_offers(own: Publisher, tag: str, channel: str | None, expected: str) -> None:
    on = own.repository.channels()["tone"]
    stable = msgspec.structs.replace(on, name="stable", release="m-2")
    beta = msgspec.structs.replace(on, name="beta", release="m-4", abort_to="m-3")
    channels = {"stable": stable, "beta": beta}
    assert offered_by(channels, tag, channel) == expected
    with pytest.raises(UsageError, match=r"no channel is called 1\.0: say --channel; there are: stable, beta"):
        offered_by(channels, "1.0", None)
    with pytest.raises(UsageError, match="there is no channel gamma"):
        offered_by(channels, "stable", "gamma")
    assert offered_by({"stable": stable}, "1.0", None) == "m-2"


# --- what a registry may answer ---------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["http://elsewhere.example/upload", "https://127.0.0.1:{port}/upload", "//elsewhere.example/x", "ftp:/x"]
)
def test_bytes_are_sent_nowhere_else(own: Publisher, registry: Registry, place: str) -> None:
    registry.answers["POST"] = (202, {"Location": place.format(port=registry.port)}, b"")
    with pytest.raises(PublishError, match="wants bytes to be sent to another host"):
        pushed(own, registry)
    assert [method for method, _ in registry.said] == ["HEAD", "POST"]


@pytest.mark.parametrize(
    ("challenge", "problem"),
    [
        ('Bearer realm="http://elsewhere.example/token"', "asks who we are"),
        ('Bearer realm="http://localhost.elsewhere.example/token"', "asks who we are"),
        ('Bearer service="x"', "asks who we are"),
        ('Digest realm="x"', "asks who we are"),
        ("", "asks who we are"),
        ('Basic realm="x"', r"does not let us push to shop as till \(401\)"),
    ],
)
def test_a_password_is_said_to_whom_it_is_for(own: Publisher, registry: Registry, challenge: str, problem: str) -> None:
    registry.answers["HEAD"] = (401, {"WWW-Authenticate": challenge}, b"")
    with pytest.raises(PublishError, match=problem):
        pushed(own, registry)
    told = [said for _, said in registry.said]
    assert told == [None, *([TILL.basic] if challenge.startswith("Basic") else [])]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((403, {}, b""), r"does not let us push to shop as till \(403\)"),
        ((507, {}, b'{"errors": [{"code": "QUOTA", "message": "no more room"}]}'), "answers 507 to PUT: no more room"),
        ((200, {}, b"<html>hello</html>"), r"answers 200 to PUT: is this an OCI registry\?"),
        ((302, {"Location": "http://elsewhere.example"}, b""), "answers 302 to PUT"),
    ],
)
def test_a_registry_that_does_not_take_it_is_said_in_a_sentence(
    own: Publisher, registry: Registry, answer: tuple[int, dict[str, str], bytes], problem: str
) -> None:
    registry.answers["PUT"] = answer
    with pytest.raises(PublishError, match=problem):
        pushed(own, registry)
    assert registry.tags == {}

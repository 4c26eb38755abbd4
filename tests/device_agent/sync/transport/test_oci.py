"""A repository in an OCI registry: what is read of it, who is told the password, and what is not believed."""

import base64
import json
from collections.abc import Iterator, Mapping

import pytest

from device_agent.sync.records import file_path
from device_agent.sync.transport.oci import MAX_LAYERS, NEWEST
from edgekit.errors import CorruptRelease, NotAdmitted, NotInRepository, SyncError, Unreachable, UsageError
from edgekit.release import oci
from edgekit.release.oci import parse_reference
from tests.contents import noise, sha256
from tests.device_agent.sync.transport.opening import fetched, fresh_and_resumed, opened
from tests.hostile_http import Asked, Fault, Hostile, Reply, cut, endless, flipped, no_ranges, raw, redirected, says
from tests.worlds import Crawling

DATA = noise(300_000)
FILE = file_path(sha256(DATA))
ROOT = "metadata/1.root.json"
MANIFEST = "v2/shop/model/manifests/stable"
BASIC = f"Basic {base64.b64encode(b'till:open sesame').decode()}"


def layer(path: str, data: bytes, media_type: str = oci.REPOSITORY_TYPE) -> dict[str, object]:
    annotations = {oci.FILE_PATH: f"{oci.REPOSITORY_FOLDER}{path}"}
    return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data), "annotations": annotations}


def tagged(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Everything that a registry answers for one tag."""
    manifest = {"schemaVersion": 2, "layers": [layer(path, data) for path, data in files.items()]}
    blobs = {f"v2/shop/model/blobs/sha256:{sha256(data)}": data for data in (*files.values(), DATA)}
    return {MANIFEST: json.dumps(manifest).encode(), **blobs}


@pytest.fixture
def files() -> dict[str, bytes]:
    return tagged({NEWEST: b'{"version": 1}', ROOT: b"root"})


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[Hostile]:
    with Hostile(files) as hostile:
        yield hostile


def address(server: Hostile, user: str = "") -> str:
    return f"oci://{user}127.0.0.1:{server.port}/shop/model:stable"


# --- what is read -----------------------------------------------------------------------------


@fresh_and_resumed
def test_metadata_comes_by_the_manifest_and_content_by_its_digest(server: Hostile, start: int) -> None:
    source = opened(address(server))
    assert source.name == address(server)
    assert source.holds == "files"
    assert source.read(ROOT, limit=100) == b"root"
    assert source.read(NEWEST, limit=100) == b'{"version": 1}'
    assert fetched(source, FILE, DATA, start=start) == DATA[start:]
    assert fetched(source, FILE.replace("files/", "packs/ab/") + ".pack", DATA, start=start) == DATA[start:]
    assert {asked.headers.get("accept") for asked in server.asked if asked.path == MANIFEST} == {oci.MANIFEST_TYPE}
    for missing in ("metadata/2.root.json", "../v2/shop/other"):
        with pytest.raises(NotInRepository):
            source.read(missing, limit=100)
    with pytest.raises(NotInRepository):
        fetched(source, file_path("9" * 64), DATA)
    with pytest.raises(NotInRepository):
        fetched(source, "blobs/anything", DATA)


def test_the_tag_is_looked_up_again_for_the_newest_and_only_then(server: Hostile, files: dict[str, bytes]) -> None:
    source = opened(address(server))
    source.read(ROOT, limit=100)
    files.update(tagged({NEWEST: b'{"version": 2}', ROOT: b"other root"}))
    assert source.read(ROOT, limit=100) == b"root"
    assert source.read(NEWEST, limit=100) == b'{"version": 2}'
    assert source.read(ROOT, limit=100) == b"other root"
    assert [asked.path for asked in server.asked].count(MANIFEST) == 2


def test_a_cut_blob_goes_on_where_it_was_cut(server: Hostile) -> None:
    source = opened(address(server))
    server.then(cut(100_000), cut(50_000))
    assert fetched(source, FILE, DATA, start=1) == DATA[1:]
    assert [asked.range for asked in server.asked] == [
        "bytes=1-299999",
        "bytes=100001-299999",
        "bytes=150001-299999",
    ]


def test_a_registry_without_ranges_will_do(server: Hostile) -> None:
    server.always(no_ranges())
    assert fetched(opened(address(server)), FILE, DATA, start=200_000, length=5) == DATA[200_000:200_005]


# --- what is not believed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "error"),
    [
        (b"", CorruptRelease),
        (b"<html>", CorruptRelease),
        (b"[" * 100_000, CorruptRelease),
        (b'{"layers": [{"digest": 1}]}', CorruptRelease),
        (b'{"layers": [], "x": "' + b" " * oci.MAX_MANIFEST_BYTES + b'"}', CorruptRelease),
        (json.dumps({"layers": [{"digest": "sha256:0"}] * (MAX_LAYERS + 1)}).encode(), CorruptRelease),
        (b'{"layers": []}', NotInRepository),
        (json.dumps({"layers": [layer(NEWEST, b"x", oci.DOC_TYPE)]}).encode(), NotInRepository),
        (json.dumps({"layers": [layer(NEWEST, b"x") | {"digest": "sha256:../../etc"}]}).encode(), NotInRepository),
    ],
    ids=["empty", "a page", "deep", "types", "large", "many layers", "none", "a document", "no digest"],
)
def test_a_manifest_that_is_none_is_refused(
    server: Hostile, files: dict[str, bytes], manifest: bytes, error: type[SyncError]
) -> None:
    files[MANIFEST] = manifest
    files[f"v2/shop/model/blobs/sha256:{sha256(b'x')}"] = b"x"
    source = opened(address(server))
    for path in (NEWEST, ROOT):
        with pytest.raises(error):
            source.read(path, limit=100)


def test_no_such_tag_is_said_by_its_name(server: Hostile, files: dict[str, bytes]) -> None:
    del files[MANIFEST]
    with pytest.raises(NotInRepository, match=r"the tag stable of 127\.0\.0\.1:\d+/shop/model"):
        opened(address(server)).read(NEWEST, limit=100)


def test_what_a_blob_has_is_for_others_to_judge_but_its_length_is_not(server: Hostile) -> None:
    source = opened(address(server))
    source.read(ROOT, limit=100)
    with pytest.raises(CorruptRelease):
        source.read(ROOT, limit=3)
    server.always(flipped(5))
    assert sha256(fetched(source, FILE, DATA)) != sha256(DATA)
    with pytest.raises(CorruptRelease):
        fetched(source, FILE, DATA + b"!", start=9)


# --- who is told what -------------------------------------------------------------------------


class Doorman:
    """Lets in who shows the token of the day, and says where tokens are given."""

    def __init__(self, server: Hostile, realm: str, *, token: str = "first") -> None:
        self.token = token
        self._realm = realm
        self._server = server
        server.always(self._open, paths="v2/.*")
        server.always(self._give, paths="token")

    def _open(self, asked: Asked, reply: Reply, _file: bytes | None) -> Reply:
        if asked.headers.get("authorization") == f"Bearer {self.token}":
            return reply
        scope = 'service="registry",scope="repository:shop/model:pull"'
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="{self._realm}",{scope}', "Content-Length": "0"})

    def _give(self, asked: Asked, _reply: Reply, _file: bytes | None) -> Reply:
        known = asked.headers.get("authorization") == BASIC
        body = json.dumps({"token": self.token} if known else {}).encode()
        return Reply(200 if known else 401, {"Content-Length": str(len(body))}, body)

    @property
    def asked(self) -> list[Asked]:
        return [asked for asked in self._server.asked if asked.path == "token"]


def test_a_token_is_asked_for_once_and_again_when_it_has_ended(server: Hostile) -> None:
    door = Doorman(server, f"{server.url}/token")
    source = opened(address(server, "till:open%20sesame@"))
    assert source.read(ROOT, limit=100) == b"root"
    assert fetched(source, FILE, DATA, start=7) == DATA[7:]
    assert len(door.asked) == 1
    assert door.asked[0].url == "/token?service=registry&scope=repository%3Ashop%2Fmodel%3Apull"
    door.token = "second"
    assert fetched(source, FILE, DATA, start=9) == DATA[9:]
    assert [asked.headers["authorization"] for asked in door.asked] == [BASIC, BASIC]


@pytest.mark.parametrize("user", ["", "till:wrong@"])
def test_who_gets_no_token_is_told_at_once(server: Hostile, user: str) -> None:
    Doorman(server, f"{server.url}/token")
    with pytest.raises(NotAdmitted, match=r"gives no token \(401\)") as caught:
        opened(address(server, user)).read(ROOT, limit=100)
    assert ("this device's user name" in caught.value.problem) == bool(user)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "realm",
    ["http://registry.example/token", "http://127.0.0.1.example/token", "ftp://127.0.0.1/token", "", "https://"],
)
def test_a_password_is_not_said_in_the_open(server: Hostile, realm: str) -> None:
    Doorman(server, realm)
    with pytest.raises(NotAdmitted, match="asks who we are"):
        opened(address(server, "till:open%20sesame@")).read(ROOT, limit=100)
    assert {asked.path for asked in server.asked} == {MANIFEST}


@pytest.mark.parametrize(
    "answer",
    [
        says(200, body=b""),
        says(200, body=b"{}"),
        says(200, body=b"[]"),
        says(200, body=b'{"token": "with space"}'),
        says(200, body=b'{"x": ' + b"[" * 60_000),
        says(200, body=b'{"token": "' + b"a" * 20_000 + b'"}'),
        says(200, body=b"\xff" * 9),
        endless(b" " * 1000),
    ],
    ids=["empty", "none", "a list", "two words", "deep", "long", "bytes", "endless"],
)
def test_a_token_that_is_none_is_not_sent(server: Hostile, files: dict[str, bytes], answer: Fault) -> None:
    files["token"] = b""
    Doorman(server, f"{server.url}/token")
    server.always(answer, paths="token")
    with pytest.raises(NotAdmitted, match="no token that can be read"):
        opened(address(server)).read(ROOT, limit=100)


def test_c09_where_tokens_are_given_nothing_may_drip(server: Hostile, files: dict[str, bytes]) -> None:
    files["token"] = b""
    Doorman(server, f"{server.url}/token")
    server.always(raw(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), paths="token")
    with pytest.raises(Unreachable, match="too slow"):
        opened(address(server), world=Crawling(step_s=61.0)).read(ROOT, limit=100)


def test_where_blobs_lie_elsewhere_nobody_there_hears_the_password(server: Hostile, files: dict[str, bytes]) -> None:
    with Hostile(files) as store:
        server.always(redirected(f"{store.url}/{{path}}", 307), paths=".*/blobs/.*")
        source = opened(address(server, "till:open%20sesame@"))
        assert fetched(source, FILE, DATA, start=3) == DATA[3:]
        assert {asked.headers.get("authorization") for asked in server.asked} == {BASIC}
        assert [asked.headers.get("authorization") for asked in store.asked] == [None]
        assert store.asked[0].range == "bytes=3-299999"


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("oci://registry.example/a/b:1.0", "https://registry.example/v2/a/b/"),
        ("registry.example:5000/a", "https://registry.example:5000/v2/a/"),
        ("localhost/a", "http://localhost/v2/a/"),
        ("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a/"),
        ("[::1]:5000/a", "http://[::1]:5000/v2/a/"),
        ("localhost.example:5000/a", "https://localhost.example:5000/v2/a/"),
    ],
)
def test_plain_http_is_for_this_machine(text: str, url: str) -> None:
    assert parse_reference(text).url == url


@pytest.mark.parametrize("text", ["", "oci://", "registry.example", "r.example/A", "r.example/a:b:c", "r.example/../a"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_reference(text)
    with pytest.raises(UsageError):
        opened(f"oci://{text.removeprefix('oci://')}")


def test_a_tag_of_a_release_is_one_that_registries_take() -> None:
    assert parse_reference(f"r.example/a:{oci.tag_of('tiny-1.0+cpu')}").tag == "tiny-1.0_cpu"

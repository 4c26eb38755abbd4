"""C16: the same repository, byte for byte, from everything that people keep files on."""

import contextlib
import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trustme

from edgekit.errors import CorruptRelease, NotInRepository
from edgekit.release.names import pack_path
from tests.device_agent.sync.transport.opening import fetched, opened
from tests.hostile_http import Hostile, says
from tests.servers import nginx, python_http_server

TIMESTAMP = "metadata/timestamp.json"
RELEASE = f"targets/releases/{'c' * 64}.tiny-1.0+cpu.json"
PACK, OTHER = pack_path("ab" * 32), pack_path("cd" * 32)
DATA = random.Random(11).randbytes(5_000_000)
FILES = {TIMESTAMP: b'{"v": 1}', RELEASE: b"{}", PACK: DATA, OTHER: b"\0" * 70_000}

Serve = Callable[[Path, Path], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


@contextlib.contextmanager
def over_tls(folder: Path, work: Path) -> Iterator[str]:
    work.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(work / "authority.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(work / "cert.pem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(work / "authority.pem"))
        with nginx(folder, work / "nginx", cert=work / "cert.pem") as url:
            yield url


@contextlib.contextmanager
def below_a_path(folder: Path, work: Path) -> Iterator[str]:
    with nginx(folder, work, more=f"location /models/eu/ {{ alias {folder}/; }}") as url:
        yield f"{url}/models/eu/"


CACHE = "proxy_cache cache; proxy_cache_valid 200 206 1h; proxy_cache_valid any 1m;"


@contextlib.contextmanager
def cached(folder: Path, work: Path) -> Iterator[str]:
    """Asks for whole files where parts are asked for, and answers from what it keeps."""
    work.mkdir()
    with (
        nginx(folder, work / "origin") as origin,
        nginx(folder, work / "cache", more=f"location / {{ proxy_pass {origin}; {CACHE} }}") as url,
    ):
        yield url


@contextlib.contextmanager
def object_store(folder: Path, _work: Path) -> Iterator[str]:
    """A model of what S3 answers who may read objects and not list them: 403 for what is not there.

    Ranges, lengths and 404 are as with any web server; servers that speak all of S3 are far larger than what they show.
    """
    with Hostile(folder) as server:
        server.always(says(403, {"Content-Type": "application/xml"}, b"<Error>AccessDenied</Error>"), paths=".*9.*")
        yield server.url


@contextlib.contextmanager
def packed(folder: Path, work: Path) -> Iterator[str]:
    work.mkdir()
    with tarfile.open(work / "repository.tar", "w") as archive:
        archive.add(folder, arcname="")
    yield str(work / "repository.tar")


SERVERS: dict[str, Serve] = {
    "nginx": nginx,
    "nginx with TLS": over_tls,
    "nginx without ranges": lambda folder, work: nginx(folder, work, more="max_ranges 0;"),
    "nginx that compresses": lambda folder, work: nginx(
        folder, work, more="gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;"
    ),
    "nginx below a path": below_a_path,
    "nginx that keeps no connection": lambda folder, work: nginx(folder, work, more="keepalive_timeout 0;"),
    "nginx that caches another": cached,
    "http.server": lambda folder, _work: python_http_server(folder),
    "object store": object_store,
    "folder": lambda folder, _work: contextlib.nullcontext(str(folder)),
    "file URL": lambda folder, _work: contextlib.nullcontext(folder.as_uri()),
    "tar": packed,
}


@pytest.fixture(params=SERVERS.values(), ids=list(SERVERS))
def repository(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Iterator[str]:
    with request.param(folder, tmp_path / "server") as address:
        yield address


@pytest.mark.programs
def test_c16_every_kind_of_server_gives_the_same_bytes_and_the_same_errors(repository: str) -> None:
    with contextlib.closing(opened(repository)) as source:
        for path, data in FILES.items():
            assert source.read(path, limit=len(data)) == data
            with pytest.raises(CorruptRelease):
                source.read(path, limit=len(data) - 1)
        with pytest.raises(NotInRepository):
            source.read("metadata/9.root.json", limit=100)
        with pytest.raises(NotInRepository):
            fetched(source, pack_path("9" * 64), DATA)
        assert fetched(source, PACK, DATA) == DATA
        for start, length in ((0, 1), (1, 70_000), (1_000_000, 3_000_000), (len(DATA) - 1, 1), (5, 5)):
            assert fetched(source, PACK, DATA, start=start, length=length) == DATA[start : start + length]
        for longer in (DATA + b"!", DATA[:-1]):
            with pytest.raises(CorruptRelease):
                fetched(source, PACK, longer, start=9)

"""A web server for one repository, and the client's command line against it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from tests.conformance.client import main
from tests.repositories import Repository


class Server(ThreadingHTTPServer):
    """Serves the files of a repository, and notes which were asked for."""

    daemon_threads = True

    def __init__(self, repository: Repository) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = repository
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def names(self) -> list[str]:
        """Metadata that was asked for, as `2.root`."""
        return [path.removeprefix("metadata/").removesuffix(".json") for path in self.asked if "metadata/" in path]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.removeprefix("/")
        self.server.asked.append(path)
        raw = self.server.repository.files.get(path)
        self.send_response(404 if raw is None else 200)
        self.send_header("Content-Length", str(len(raw or b"")))
        self.end_headers()
        self.wfile.write(raw or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


class Client:
    """The command line, called in this process with the repository's time."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.server = server
        self.repository = server.repository
        self.now = self.repository.now
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.root = folder / "initial_root.json"
        self.targets.mkdir()

    def run(self, *arguments: str) -> int:
        return main(["--metadata-dir", str(self.metadata), *arguments], clock=lambda: self.now)

    def init(self, root: bytes | None = None) -> int:
        self.root.write_bytes(root or self.repository.files["metadata/1.root.json"])
        return self.run("init", str(self.root))

    def refresh(self) -> int:
        return self.run("--metadata-url", f"{self.server.url}/metadata/", "refresh")

    def download(self, name: str) -> int:
        return self.run(
            *("--metadata-url", f"{self.server.url}/metadata/", "--target-base-url", f"{self.server.url}/targets/"),
            *("--target-name", name, "--target-dir", str(self.targets), "download"),
        )

    def roles(self) -> dict[str, int]:
        """Versions of what the client trusts."""
        found: dict[str, int] = {}
        for path in sorted(self.metadata.glob("*.json")):
            metadata: Metadata = Metadata.from_file(str(path))  # type: ignore[type-arg]
            found[path.stem] = metadata.signed.version
        return found

    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.targets.iterdir())]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(Repository())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(tmp_path: Path, server: Server) -> Client:
    """One that was told the first root."""
    client = Client(tmp_path, server)
    assert client.init() == 0
    return client

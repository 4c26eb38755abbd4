"""A report on its way to a web server, which may be somebody else's."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from device_agent.sync.courier import deliver, places
from edgekit.errors import Unreachable


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stick on which nothing can be looked at any more."""
    stat = os.stat

    def failing(path: object, *args: Any, **kwargs: Any) -> object:
        if str(path).startswith(str(tmp_path)):
            raise OSError(errno.EIO, "Input/output error")
        return stat(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", failing)
    return tmp_path


def test_a_stick_that_dies_is_no_place_for_reports(dying: Path) -> None:
    assert places("https://reports.example", [str(dying)]) == ("https://reports.example",)


BODY = b'{"report": "..."}'


class Server(ThreadingHTTPServer):
    """Answers every request with `status` and `headers`, and keeps what came."""

    daemon_threads = True

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.headers = status, headers
        self.came: list[tuple[str, str, dict[str, str], bytes]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.came.append(
            (self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        )
        while self.server.status == 100:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 1000)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()

    do_PUT = do_GET = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def answering(status: int, **headers: str) -> Iterator[tuple[Server, str]]:
    server = Server(status, headers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_report_is_put_under_the_devices_name(status: int) -> None:
    with answering(status) as (server, host):
        deliver(BODY, "till-7", f"http://{host}/reports/")
    [(method, path, headers, body)] = server.came
    assert (method, path, body) == ("PUT", "/reports/till-7.json", BODY)
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers


def test_name_and_password_in_the_address_are_sent_as_such_and_shown_to_nobody() -> None:
    with answering(403) as (server, host), pytest.raises(Unreachable, match="403") as caught:
        deliver(BODY, "till-7", f"http://fleet:p%40ss@{host}/reports")
    [(_, path, headers, _)] = server.came
    assert path == "/reports/till-7.json"
    assert headers["authorization"] == "Basic ZmxlZXQ6cEBzcw=="  # fleet:p@ss
    assert "fleet" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_report_goes_nowhere_else_than_was_said(status: int) -> None:
    with answering(201) as (other, elsewhere):
        with answering(status, Location=f"http://{elsewhere}/x") as (_, host), pytest.raises(Unreachable):
            deliver(BODY, "till-7", f"http://{host}/reports")
        assert other.came == []


@pytest.mark.parametrize("status", [400, 401, 404, 405, 413, 500, 503])
def test_a_server_that_does_not_want_it_is_said(status: int) -> None:
    with answering(status) as (_, host), pytest.raises(Unreachable, match=str(status)):
        deliver(BODY, "till-7", f"http://{host}/reports")


def test_a_server_that_says_go_on_for_ever_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "handle_error", lambda *_: None)
    with answering(100) as (_, host), pytest.raises(Unreachable, match="without end"):
        deliver(BODY, "till-7", f"http://{host}/reports")


def test_a_server_that_is_not_there_is_said() -> None:
    with answering(200) as (_, host):
        pass
    with pytest.raises(Unreachable, match="did not take"):
        deliver(BODY, "till-7", f"http://{host}/reports")


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(201) as (proxy, host):
        monkeypatch.setenv("http_proxy", f"http://{host}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        deliver(BODY, "till-7", "http://reports.invalid/r")
    assert [path for _, path, _, _ in proxy.came] == ["http://reports.invalid/r/till-7.json"]

"""Slow and idle clients hold a place and nothing else, and give it up to others."""

import http.client
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from device_agent.http import HttpSettings, Server
from device_agent.http import server as server_module
from device_agent.http.callers import is_local
from device_agent.http.connections import Connection
from tests.device_agent.http.conftest import SETTINGS, Start
from tests.fakes import FakeService, script

WAIT_S = 20.0
"""Only ever waited for when something is broken."""

IDLE = 1_000
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * IDLE)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)


@contextmanager
def asking(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    try:
        yield connection
    finally:
        connection.close()


def health(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/health")
    return connection.getresponse().read()


def is_closed(raw: socket.socket) -> bool:
    """Waits for the server to close. False would hang; so it raises TimeoutError instead."""
    try:
        return raw.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("sent", [b"", b"G", HEAD, b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"])
def test_a_thousand_clients_that_do_nothing_keep_nobody_out(start: Start, sent: bytes) -> None:
    server = start(FakeService(replies=script("a")), SETTINGS)
    with ExitStack() as stack:
        for _ in range(IDLE):
            raw = stack.enter_context(opened(server))
            if sent:
                raw.sendall(sent)
        with asking(server) as late:
            for _ in range(3):
                assert b"ok" in health(late)
        assert len(server._server.active_channels) <= SETTINGS.connection_limit


@pytest.mark.usefixtures("many_files")
def test_a_running_answer_survives_a_thousand_newcomers(start: Start) -> None:
    service = FakeService()
    server = start(service, replace(SETTINGS, connection_limit=50))
    with asking(server) as running, ExitStack() as stack:
        body = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
        running.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = service.answers.get(timeout=WAIT_S)
        response = running.getresponse()
        for _ in range(IDLE):
            stack.enter_context(opened(server))
        with asking(server) as late:
            assert b"ok" in health(late)
        answer.push(*script("all", "of", "it"))
        assert response.read().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"header_s": 0.05}, b""),
        ({"header_s": 0.05}, HEAD),
        ({"body_s": 0.05}, b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"),
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_client_that_is_too_slow_is_closed(start: Start, settings: dict[str, float], sent: bytes) -> None:
    server = start(FakeService(), replace(SETTINGS, **settings))  # type: ignore[arg-type]  # all of them are floats
    with opened(server) as raw:
        raw.sendall(sent)
        assert is_closed(raw)


def test_a_connection_that_was_used_may_rest_for_longer_than_a_head_may_take(start: Start) -> None:
    server = start(FakeService(), replace(SETTINGS, header_s=0.05, idle_s=WAIT_S))
    with opened(server) as idle, asking(server) as used:
        assert b"ok" in health(used)
        assert is_closed(idle)  # opened first, or at the same time
        assert b"ok" in health(used)


def test_a_used_connection_is_closed_in_the_end(start: Start) -> None:
    server = start(FakeService(), replace(SETTINGS, idle_s=0.05))
    with opened(server) as raw, raw.makefile("rb") as stream:
        raw.sendall(HEAD + b"\r\n")
        assert stream.read().startswith(b"HTTP/1.1 200")


def connection(**fields: object) -> Connection:
    """One that no socket is behind; times are of the test's making."""
    made = Connection.__new__(Connection)
    made.since, made.used = 0.0, False
    made.requests, made.request, made.total_outbufs_len = [], None, 0
    made.last_activity = time.time()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


HTTP = HttpSettings(header_s=10, body_s=60, idle_s=120)
READING_HEAD, READING_BODY = SimpleNamespace(headers_finished=False), SimpleNamespace(headers_finished=True)


@pytest.mark.parametrize(
    ("fields", "limit_s"),
    [
        ({}, 10),
        ({"request": READING_HEAD}, 10),
        ({"request": READING_HEAD, "used": True}, 10),
        ({"request": READING_BODY}, 60),
        ({"used": True}, 120),
    ],
)
def test_each_stage_has_its_deadline(fields: dict[str, object], limit_s: float) -> None:
    assert not connection(**fields).overdue(limit_s, HTTP)
    assert connection(**fields).overdue(limit_s + 0.1, HTTP)


def test_a_request_that_runs_has_none() -> None:
    assert not connection(requests=[object()]).overdue(1e9, HTTP)


def test_a_client_that_does_not_read_its_answer_is_closed_when_nothing_moves_any_more() -> None:
    assert not connection(total_outbufs_len=1).overdue(1e9, HTTP)
    assert connection(total_outbufs_len=1, last_activity=time.time() - 121).overdue(0, HTTP)


def test_a_client_that_reads_nothing_holds_no_thread(start: Start) -> None:
    server = start(FakeService(replies=script(*["x" * 1_000] * 3_000)), replace(SETTINGS, threads=1))
    body = b'{"model":"tiny","messages":[{"role":"user","content":"Hello"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with opened(server) as deaf:
        deaf.sendall(head % len(body) + body)
        with asking(server) as other:
            assert b"ok" in health(other)


def test_a_program_with_few_files_takes_fewer_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (200, 4_096))
    assert server_module._most_files() == 72
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert server_module._most_files() == 32
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert server_module._most_files() > 10_000


def test_a_proxy_that_says_whom_it_asks_for_is_heard(start: Start) -> None:
    server = start(FakeService(), SETTINGS)  # whose gate lets everybody in: only what is local is looked at
    assert server._server.adj.clear_untrusted_proxy_headers is False
    seen: list[bool] = []

    @server._server.application.before_request  # type: ignore[untyped-decorator]  # waitress has no types
    def look() -> None:
        seen.append(is_local())

    with asking(server) as client:
        client.request("GET", "/health", headers={"X-Forwarded-For": "192.168.1.9"})
        client.getresponse().read()
        health(client)
    assert seen == [False, True]


def test_many_clients_at_once_are_all_answered(start: Start) -> None:
    server = start(FakeService(replies=script("a")), SETTINGS)
    found: list[bytes] = []

    def ask() -> None:
        with asking(server) as client:
            found.append(health(client))

    threads = [threading.Thread(target=ask) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b'{"status":"ok","reasons":[]}'] * 60

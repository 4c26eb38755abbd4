"""The real server over real sockets: tokens leave at once, clients that leave stop their generation."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from device_agent.engine.records import Piece
from device_agent.http import HttpSettings, Server, create_app
from edgekit.errors import AddressInUse, UsageError
from tests.device_agent.http.conftest import SETTINGS, Start
from tests.fakes import FakeService, script, services

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
WAIT_S = 20.0
"""Only ever waited for when something is broken."""


@contextmanager
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    try:
        yield opened
    finally:
        opened.close()


def ask(opened: http.client.HTTPConnection, **fields: Any) -> None:
    opened.request("POST", "/v1/chat/completions", json.dumps(CHAT | fields), {"Content-Type": "application/json"})


def read_event(response: http.client.HTTPResponse) -> str:
    line = response.readline().decode().strip()
    assert response.readline() == b"\n"
    return line.removeprefix("data: ")


def test_each_token_can_be_read_before_the_next_is_made(start: Start) -> None:
    service = FakeService()
    with connection(start(service, SETTINGS)) as opened:
        ask(opened, stream=True)
        answer = service.answers.get(timeout=WAIT_S)
        response = opened.getresponse()
        assert json.loads(read_event(response))["choices"][0]["delta"]["role"] == "assistant"
        for text in ("a", "b", "c"):
            answer.push(Piece(text=text, tokens=(1,)))
            assert json.loads(read_event(response))["choices"][0]["delta"] == {"content": text}
        answer.push(*script())
        assert json.loads(read_event(response))["choices"][0]["finish_reason"] == "stop"
        assert read_event(response) == "[DONE]"
        assert response.read() == b""


def test_a_client_that_leaves_a_stream_stops_its_generation_at_the_next_token(start: Start) -> None:
    service = FakeService()
    with connection(start(service, SETTINGS)) as opened:
        ask(opened, stream=True)
        answer = service.answers.get(timeout=WAIT_S)
        response = opened.getresponse()
        read_event(response)
        answer.push(Piece(text="a", tokens=(1,)))
        read_event(response)
        response.close()
    assert answer.cancelled.wait(WAIT_S)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_token_stops_its_generation(start: Start, stream: bool) -> None:
    service = FakeService()
    with connection(start(service, SETTINGS)) as opened:
        ask(opened, stream=stream)
        answer = service.answers.get(timeout=WAIT_S)
    assert answer.cancelled.wait(WAIT_S)


def test_a_client_that_leaves_a_whole_answer_stops_it_while_tokens_keep_coming(start: Start) -> None:
    service = FakeService()
    with connection(start(service, SETTINGS)) as opened:
        ask(opened)
        answer = service.answers.get(timeout=WAIT_S)
    pushed = 0
    while not answer.cancelled.wait(0.001):  # a token each millisecond, as a fast model makes them
        answer.push(Piece(text="a", tokens=(1,)))
        pushed += 1
        assert pushed < 1_000 * WAIT_S


def test_others_are_served_while_one_stream_waits(start: Start) -> None:
    service = FakeService()
    server = start(service, SETTINGS)
    with connection(server) as waiting, connection(server) as other:
        ask(waiting, stream=True)
        answer = service.answers.get(timeout=WAIT_S)
        other.request("GET", "/health")
        assert other.getresponse().read() == b'{"status":"ok","reasons":[]}'
        answer.push(*script("a"))
        assert waiting.getresponse().read().endswith(b"data: [DONE]\n\n")


def test_an_http_1_0_client_gets_a_stream_without_chunked_encoding(start: Start) -> None:
    server = start(FakeService(replies=script("a")), SETTINGS)
    body = json.dumps(CHAT | {"stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as raw, raw.makefile("rb") as answer:
        raw.sendall(head.encode() + body)
        text = answer.read()
    assert b"transfer-encoding" not in text.lower()
    assert text.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("size", [10 << 20, 40 << 20])
def test_a_body_over_the_limit_is_answered_as_json(start: Start, size: int) -> None:
    server = start(FakeService(), SETTINGS)
    with connection(server) as opened:
        opened.putrequest("POST", "/v1/chat/completions")
        opened.putheader("Content-Type", "application/json")
        opened.putheader("Content-Length", str(size))
        opened.endheaders()
        if size <= 16 << 20:
            opened.send(b" " * size)
        response = opened.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
    ids=["no path", "no colon", "long header"],
)
def test_broken_http_is_answered_as_json(start: Start, request_bytes: bytes) -> None:
    server = start(FakeService(), SETTINGS)
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as raw, raw.makefile("rb") as answer:
        raw.sendall(request_bytes)
        head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.split()[1] in {b"400", b"431"}
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_the_server_header_names_no_software_versions(start: Start) -> None:
    with connection(start(FakeService(), SETTINGS)) as opened:
        opened.request("GET", "/health")
        response = opened.getresponse()
        response.read()
    assert response.headers.get_all("Server") == ["edgekit"]
    assert response.headers["Via"] is None


# --- binding and stopping -------------------------------------------------------------------


def server_on(host: str, port: int) -> Server:
    return Server(create_app(services(), SETTINGS), host=host, port=port, settings=SETTINGS)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1")],
)
def test_the_url_is_one_that_a_browser_here_can_open(host: str, shown: str) -> None:
    server = server_on(host, 0)
    try:
        assert server.port
        assert server.url == f"http://{shown}:{server.port}"
    finally:
        server.close()


def test_an_ipv6_address_is_written_in_brackets() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))  # fails here, with a clear reason, on a machine without IPv6
    server = server_on("::1", 0)
    try:
        assert server.url == f"http://[::1]:{server.port}"
    finally:
        server.close()


def test_a_taken_port_is_refused_before_anything_runs() -> None:
    first = server_on("127.0.0.1", 0)
    try:
        with pytest.raises(AddressInUse, match=str(first.port)):
            server_on("127.0.0.1", first.port)
    finally:
        first.close()


@pytest.mark.parametrize(
    ("host", "port"), [("203.0.113.1", 0), ("a..b", 0), ("127.0.0.1", 70_000), ("127.0.0.1", -1), ("\0", 0)]
)
def test_an_impossible_address_is_a_usage_error(host: str, port: int) -> None:
    with pytest.raises(UsageError, match="cannot listen on"):
        server_on(host, port)


def test_closing_an_unserved_server_gives_the_port_back() -> None:
    unserved = server_on("127.0.0.1", 0)
    unserved.close()
    unserved.close()
    unserved.serve()  # returns at once
    server_on("127.0.0.1", unserved.port).close()


def serving(service: FakeService, settings: HttpSettings) -> tuple[Server, threading.Thread]:
    server = Server(create_app(services(service), settings), host="127.0.0.1", port=0, settings=settings)
    thread = threading.Thread(target=server.serve)
    thread.start()
    return server, thread


def test_a_stopping_server_lets_a_running_answer_finish() -> None:
    service = FakeService()
    server, thread = serving(service, HttpSettings(poll_s=0.02, threads=2, drain_s=WAIT_S))
    with connection(server) as opened:
        ask(opened, stream=True)
        answer = service.answers.get(timeout=WAIT_S)
        response = opened.getresponse()
        read_event(response)
        server.close()
        answer.push(*script("late"))
        assert b"late" in response.read()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_stopping_server_cuts_off_an_answer_that_takes_too_long() -> None:
    service = FakeService()
    server, thread = serving(service, HttpSettings(poll_s=0.02, threads=2, drain_s=0.05))
    with connection(server) as opened:
        ask(opened, stream=True)
        answer = service.answers.get(timeout=WAIT_S)
        server.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        assert answer.cancelled.wait(WAIT_S)

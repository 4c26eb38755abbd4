"""HTTPS by the server itself: real sockets, real certificates of a made-up authority, the clients that people use."""

import http.client
import json
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import openai
import pytest
import trustme

from device_agent.engine.records import Piece
from device_agent.http import HttpSettings, Server, create_app, tls
from edgekit.errors import UsageError
from tests.device_agent.http.conftest import SETTINGS, Start
from tests.fakes import FakeService, script, services

WAIT_S = 20.0
"""Only ever waited for when something is broken."""

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass(frozen=True)
class Papers:
    """A certificate for localhost on disk, and clients' trust in who signed it."""

    cert: Path
    key: Path
    trust: ssl.SSLContext

    def settings(self, base: HttpSettings = SETTINGS) -> HttpSettings:
        return replace(base, tls_cert=self.cert, tls_key=self.key)


def issued(authority: trustme.CA, folder: Path) -> Papers:
    folder.mkdir(exist_ok=True)
    cert = authority.issue_cert("localhost", "127.0.0.1")
    cert.private_key_pem.write_to_path(folder / "key.pem")
    for at, blob in enumerate(cert.cert_chain_pems):
        blob.write_to_path(folder / "cert.pem", append=at > 0)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return Papers(folder / "cert.pem", folder / "key.pem", trust)


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return issued(trustme.CA(), tmp_path_factory.mktemp("tls"))


@contextmanager
def connection(server: Server, trust: ssl.SSLContext) -> Iterator[http.client.HTTPSConnection]:
    opened = http.client.HTTPSConnection("localhost", server.port, timeout=WAIT_S, context=trust)
    try:
        yield opened
    finally:
        opened.close()


def ask(opened: http.client.HTTPSConnection, *, stream: bool = True) -> None:
    opened.request(
        "POST", "/v1/chat/completions", json.dumps(BODY | {"stream": stream}), {"Content-Type": "application/json"}
    )


def health(opened: http.client.HTTPSConnection) -> bytes:
    opened.request("GET", "/health")
    return opened.getresponse().read()


def test_the_address_says_https(start: Start, papers: Papers) -> None:
    server = start(FakeService(), papers.settings())
    assert server.url == f"https://127.0.0.1:{server.port}"


def test_urllib_httpx_and_the_openai_sdk_are_served(start: Start, papers: Papers) -> None:
    server = start(FakeService(replies=script("Pa", "ris", ".")), papers.settings())
    with urllib.request.urlopen(f"{server.url}/health", context=papers.trust, timeout=WAIT_S) as answer:
        assert json.load(answer)["status"] == "ok"
    with openai.DefaultHttpxClient(verify=papers.trust, timeout=WAIT_S) as client:
        assert client.post(f"{server.url}/v1/chat/completions", json=BODY).status_code == 200
        sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=client, max_retries=0)
        chunks = sdk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hello"}], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris."


def test_each_token_can_be_read_before_the_next_is_made(start: Start, papers: Papers) -> None:
    service = FakeService()
    with connection(start(service, papers.settings()), papers.trust) as opened:
        ask(opened)
        answer = service.answers.get(timeout=WAIT_S)
        response = opened.getresponse()
        assert response.readline().startswith(b"data: ")
        for text in ("a", "b", "c"):
            answer.push(Piece(text=text, tokens=(1,)))
            assert response.readline() == b"\n"
            assert json.loads(response.readline()[6:])["choices"][0]["delta"] == {"content": text}
        answer.push(*script())
        assert response.read().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_generation(start: Start, papers: Papers, stream: bool) -> None:
    service = FakeService()
    with connection(start(service, papers.settings()), papers.trust) as opened:
        ask(opened, stream=stream)
        answer = service.answers.get(timeout=WAIT_S)
    assert answer.cancelled.wait(WAIT_S)


def test_large_bodies_go_through_both_ways(start: Start, papers: Papers) -> None:
    text = "".join(chr(97 + at % 26) for at in range(60_000))
    service = FakeService(replies=script(*[text] * 30))
    with connection(start(service, papers.settings()), papers.trust) as opened:
        body = json.dumps(BODY | {"messages": [{"role": "user", "content": text * 30}]})
        opened.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = json.load(opened.getresponse())
    assert service.conversations[0][0].content == text * 30
    assert answer["choices"][0]["message"]["content"] == text * 30


def test_several_requests_share_a_connection_and_a_session(start: Start, papers: Papers) -> None:
    server = start(FakeService(), papers.settings())
    with connection(server, papers.trust) as opened:
        assert all(b'"ok"' in health(opened) for _ in range(5))


def test_requests_sent_together_are_answered_in_order(start: Start, papers: Papers) -> None:
    server = start(FakeService(), papers.settings())
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with raw_tls(server, papers.trust) as opened:
        opened.sendall(head * 20 + last)
        found = b""
        while piece := opened.recv(65_536):
            found += piece
    assert found.count(b'"status":"ok"') == 21


def test_the_end_of_an_answer_without_a_length_can_be_told_from_a_cut(start: Start, papers: Papers) -> None:
    server = start(FakeService(replies=script("a")), papers.settings())
    body = json.dumps(BODY | {"stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    found = b""
    with raw_tls(server, papers.trust) as opened:  # a missing goodbye would raise SSLEOFError
        opened.sendall(head.encode() + body)
        while piece := opened.recv(65_536):
            found += piece
    assert found.endswith(b"data: [DONE]\n\n")


@contextmanager
def raw_tls(server: Server, trust: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    raw = socket.create_connection(("localhost", server.port), timeout=WAIT_S)
    with trust.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as opened:
        yield opened


def test_the_app_sees_the_client_and_not_a_forwarder(papers: Papers) -> None:
    app = create_app(services(), papers.settings())
    seen: list[tuple[str, str]] = []

    @app.before_request
    def look() -> None:
        from flask import request

        seen.append((request.scheme, f"{request.remote_addr}"))

    server = Server(app, host="127.0.0.1", port=0, settings=papers.settings())
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        with connection(server, papers.trust) as opened:
            health(opened)
    finally:
        server.close()
        thread.join(WAIT_S)
    assert seen == [("https", "127.0.0.1")]


# --- who is not served ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_nothing_older_than_tls_1_2_is_spoken(start: Start, papers: Papers) -> None:
    server = start(FakeService(), papers.settings())
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)), raw_tls(server, old):
        pass
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        one = ssl.create_default_context()
        one.check_hostname, one.verify_mode = False, ssl.CERT_NONE
        one.minimum_version = one.maximum_version = version
        with connection(server, one) as opened:
            assert b"ok" in health(opened)


@pytest.mark.parametrize(
    "sent", [b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 9_000, b"\0" * 100]
)
def test_what_is_no_tls_is_closed_and_others_are_served(start: Start, papers: Papers, sent: bytes) -> None:
    server = start(FakeService(), papers.settings())
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as raw:
        raw.sendall(sent)
        found = b""
        try:
            while piece := raw.recv(4_096):
                found += piece
        except ConnectionResetError:
            found += b""
    assert b"status" not in found
    with connection(server, papers.trust) as opened:
        assert b"ok" in health(opened)


def test_a_handshake_that_never_ends_is_closed(start: Start, papers: Papers) -> None:
    server = start(FakeService(), papers.settings(replace(SETTINGS, header_s=0.05)))
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        assert raw.recv(1) == b""


def test_clients_in_the_middle_of_a_handshake_keep_nobody_out(start: Start, papers: Papers) -> None:
    server = start(FakeService(), papers.settings(replace(SETTINGS, connection_limit=30)))
    with ExitStack() as stack:
        for _ in range(200):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S))
            raw.sendall(b"\x16\x03\x01\x02\x00\x01")
        with connection(server, papers.trust) as opened:
            assert b"ok" in health(opened)


def test_a_request_that_comes_byte_by_byte_is_served(start: Start, papers: Papers) -> None:
    server = start(FakeService(), papers.settings())
    with raw_tls(server, papers.trust) as opened:
        for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            opened.sendall(bytes([byte]))
        assert opened.recv(4_096).startswith(b"HTTP/1.1 200")


def test_many_clients_at_once_each_get_their_own_answer(start: Start, papers: Papers) -> None:
    server = start(FakeService(replies=script(*[f"<{at}>" for at in range(300)])), papers.settings())
    wanted = "".join(f"<{at}>" for at in range(300))
    found: list[str] = []

    def run() -> None:
        with connection(server, papers.trust) as opened:
            for _ in range(3):
                ask(opened, stream=False)
                found.append(json.load(opened.getresponse())["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 36


# --- certificates ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["missing", "empty", "swapped", "another key", "encrypted key"])
def test_files_that_are_no_pair_are_refused_at_start(papers: Papers, tmp_path: Path, wrong: str) -> None:
    cert, key = papers.cert, papers.key
    if wrong == "missing":
        cert = tmp_path / "none.pem"
    elif wrong == "empty":
        cert = tmp_path / "cert.pem"
        cert.write_text("")
    elif wrong == "swapped":
        cert, key = key, cert
    elif wrong == "another key":
        key = issued(trustme.CA(), tmp_path / "other").key
    else:
        key = tmp_path / "key.pem"
        name = "ENCRYPTED PRIVATE KEY"
        key.write_text(f"-----BEGIN {name}-----\nMIIBvTBXBgkqhkiG9w0BBQ0wSjApBg==\n-----END {name}-----\n")
    settings = replace(SETTINGS, tls_cert=cert, tls_key=key)
    with pytest.raises(UsageError, match="certificate"):
        Server(create_app(services(), settings), host="127.0.0.1", port=0, settings=settings)


@pytest.mark.parametrize("half", ["tls_cert", "tls_key"])
def test_half_a_pair_is_refused(papers: Papers, half: str) -> None:
    with pytest.raises(UsageError, match="both"):
        if half == "tls_cert":
            HttpSettings.listening_on("127.0.0.1", tls_cert=papers.cert)
        else:
            HttpSettings.listening_on("127.0.0.1", tls_key=papers.key)


def test_a_renewed_certificate_is_used_for_new_connections(start: Start, tmp_path: Path) -> None:
    first = issued(trustme.CA(), tmp_path)
    server = start(FakeService(), first.settings())
    with connection(server, first.trust) as before:
        assert b"ok" in health(before)
        second = issued(trustme.CA(), tmp_path)
        server.renew_certificate()
        assert b"ok" in health(before)
        with connection(server, second.trust) as after:
            assert b"ok" in health(after)
        first.key.write_text("no key")
        with pytest.raises(UsageError, match="cannot be used"):
            server.renew_certificate()
        with connection(server, second.trust) as after:
            assert b"ok" in health(after)


def test_a_bad_pair_takes_no_place_in_a_context(papers: Papers, tmp_path: Path) -> None:
    made = tls.context(papers.cert, papers.key)
    other = issued(trustme.CA(), tmp_path)
    with pytest.raises(UsageError):
        tls.load(made, other.cert, papers.key)
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2

"""Pages of other origins: none may read, unless the settings name theirs."""

import pytest
from flask.testing import FlaskClient

from device_agent.http import HttpSettings, create_app
from device_agent.http.services import Caller
from edgekit.errors import UsageError
from tests.fakes import FakeGate, FakeService, script, services

PAGE = "https://chat.example.org"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


def client_of(*origins: str, nobody: Caller | None = Caller()) -> FlaskClient:  # noqa: B008 - a frozen record
    settings = HttpSettings.listening_on("127.0.0.1", origins=origins)
    gate = FakeGate(nobody=nobody)
    return create_app(services(FakeService(replies=script("a")), gate=gate), settings).test_client()


def test_a_page_of_an_allowed_origin_may_ask_with_a_key_and_read() -> None:
    client = client_of(PAGE)
    allowed = client.options("/v1/chat/completions", headers=PREFLIGHT)
    assert allowed.status_code == 204
    assert allowed.data == b""
    assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
    assert allowed.headers["Access-Control-Allow-Headers"] == "authorization,content-type,x-stainless-os"
    assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
    assert {"Origin", "Access-Control-Request-Headers"} <= {name.strip() for name in allowed.headers["Vary"].split(",")}
    answer = client.post("/v1/chat/completions", json=CHAT, headers={"Origin": PAGE, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_preflight_has_no_key_and_opens_nothing_by_itself() -> None:
    client = client_of(PAGE, nobody=None)
    assert client.options("/v1/chat/completions", headers=PREFLIGHT).status_code == 204
    answer = client.post("/v1/chat/completions", json=CHAT, headers={"Origin": PAGE})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE  # the page may read why


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST"])
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://chat.example.org",
        "https://chat.example.org:8443",
        "https://chat.example.org.evil.example",
        "https://sub.chat.example.org",
        "null",
        "",
        "*",
    ],
)
@pytest.mark.parametrize("origins", [(), (PAGE,)])
def test_no_other_origin_is_answered(origins: tuple[str, ...], origin: str, method: str) -> None:
    headers = {**PREFLIGHT, "Origin": origin}
    answer = client_of(*origins).open("/v1/chat/completions", method=method, json=CHAT, headers=headers)
    assert answer.status_code == 403
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


def test_an_allowed_page_of_another_host_name_is_refused_all_the_same() -> None:
    answer = client_of(PAGE).get("/v1/models", headers={"Origin": PAGE, "Host": "evil.example"})
    assert answer.status_code == 403


def test_caches_keep_answers_to_different_origins_apart() -> None:
    assert "Origin" in client_of(PAGE).get("/health").headers["Vary"]
    assert "Vary" not in client_of().get("/health").headers


@pytest.mark.parametrize("names", ["a\r\nb: c", "x" * 3_000, "a b", "*"])
def test_strange_header_names_are_not_repeated(names: str) -> None:
    headers = {**PREFLIGHT, "Access-Control-Request-Headers": names.replace("\r\n", " ")}
    assert "Access-Control-Allow-Headers" not in client_of(PAGE).options("/v1/models", headers=headers).headers


def test_a_public_page_may_ask_a_private_address_only_if_it_is_allowed() -> None:
    headers = {**PREFLIGHT, "Access-Control-Request-Private-Network": "true"}
    assert client_of(PAGE).options("/v1/models", headers=headers).headers["Access-Control-Allow-Private-Network"]
    assert client_of().options("/v1/models", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Chat.Example.org/", "https://chat.example.org"),
        (" http://pi:3000 ", "http://pi:3000"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_origins_are_kept_as_browsers_write_them(given: str, kept: str) -> None:
    assert HttpSettings.listening_on("127.0.0.1", origins=(given,)).allowed_origins == {kept}


@pytest.mark.parametrize("given", ["*", "null", "", "chat.example.org", "https://a/path", "https://a b", "file:///x"])
def test_what_is_no_origin_is_refused_at_start(given: str) -> None:
    with pytest.raises(UsageError, match="origin"):
        HttpSettings.listening_on("127.0.0.1", origins=(given,))

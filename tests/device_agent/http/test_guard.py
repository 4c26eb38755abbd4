"""Who may talk to a localhost server."""

import pytest
from flask.testing import FlaskClient

from device_agent.http import HttpSettings, guard

LOCAL = HttpSettings.listening_on("127.0.0.1")
EVERYWHERE = HttpSettings.listening_on("0.0.0.0", names=("Kitchen-Pi.local",))
LAN = HttpSettings.listening_on("192.168.1.5")
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        (LOCAL, "localhost"),
        (LOCAL, "LOCALHOST:8080"),
        (LOCAL, "localhost.:8080"),
        (LOCAL, "127.0.0.1:8080"),
        (LOCAL, "127.9.9.9"),
        (LOCAL, "[::1]:8080"),
        (LAN, "192.168.1.5:8080"),
        (LAN, "localhost"),
        (EVERYWHERE, "192.168.1.5"),
        (EVERYWHERE, "[fe80::1]:80"),
        (EVERYWHERE, "kitchen-pi.local:8080"),
        (HttpSettings.listening_on("::"), "10.0.0.1"),
        (HttpSettings.listening_on(""), "10.0.0.1"),
        (HttpSettings.listening_on("my-laptop"), "my-laptop:8080"),
    ],
)
def test_a_known_host_is_served(settings: HttpSettings, host: str) -> None:
    assert guard.is_allowed(host, settings)


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        (LOCAL, "evil.example"),
        (LOCAL, "evil.example:8080"),
        (LOCAL, "localhost.evil.example"),
        (LOCAL, "127.0.0.1.evil.example"),
        (LOCAL, "192.168.1.5"),
        (LOCAL, "0.0.0.0"),
        (LOCAL, "localhost, evil.example"),
        (LOCAL, "evil.example@localhost"),
        (LOCAL, "localhost:8080:80"),
        (LOCAL, "[::1"),
        (LOCAL, "[localhost]"),
        (LOCAL, ""),
        (LAN, "192.168.1.6"),
        (EVERYWHERE, "evil.example"),
    ],
)
def test_an_unknown_host_is_refused(settings: HttpSettings, host: str) -> None:
    assert not guard.is_allowed(host, settings)


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/web/app.js", "/nowhere"])
def test_no_route_answers_a_rebound_name(client: FlaskClient, path: str) -> None:
    answer = client.get(path, headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert "evil.example" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://localhost.evil.example", "null", "http://localhost:3000", "", "http://[broken"],
)
def test_a_page_of_another_site_may_not_post(client: FlaskClient, origin: str) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT, headers={"Origin": origin})
    assert answer.status_code == 403


def test_the_agents_own_page_may_post(client: FlaskClient) -> None:
    headers = {"Host": "localhost:8080", "Origin": "http://localhost:8080"}
    assert client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/", "/health", "/v1/models", "/v1/usage", "/openapi.json", "/web/app.js", "/nowhere"]
)
def test_a_page_of_another_site_gets_nothing(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "somewhere"])
@pytest.mark.parametrize("mode", ["no-cors", "navigate", "cors", "websocket"])
def test_a_request_that_a_browser_says_comes_from_elsewhere_gets_nothing(
    client: FlaskClient, site: str, mode: str
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}  # of an image, a form or a script: no Origin
    assert client.get("/v1/models", headers=headers).status_code == 403


def test_a_person_may_follow_a_link_to_the_page_and_to_nothing_else(client: FlaskClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/openapi.json", headers=headers).status_code == 403
    assert client.post("/", headers=headers).status_code == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_a_person_types_and_the_page_itself_are_served(client: FlaskClient, site: str) -> None:
    assert client.get("/openapi.json", headers={"Sec-Fetch-Site": site}).status_code == 200

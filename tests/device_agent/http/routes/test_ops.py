"""What operators ask, and what is written down of every request."""

import logging
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from device_agent.http import create_app
from device_agent.http.services import Health
from device_agent.logs import request_id
from tests.device_agent.http.conftest import SETTINGS
from tests.fakes import FakeGate, FakeOperations, FakeService, script, services

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "a secret question"}]}


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def client(operations: FakeOperations) -> FlaskClient:
    made = services(FakeService(replies=script("a", "b")), operations=operations)
    return create_app(made, SETTINGS).test_client()


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
@pytest.mark.parametrize(
    ("health", "status", "error"),
    [
        (Health(status="ok"), 200, None),
        (Health(status="degraded", reasons=("one bundle is broken",)), 200, None),
        (Health(status="loading", reasons=("a is being loaded",), ready=False), 503, "Loading model"),
        (Health(status="degraded", reasons=("no model", "no disk"), ready=False), 503, "no model; no disk"),
    ],
    ids=["ok", "degraded", "loading", "down"],
)
def test_health_has_a_status_line_that_says_whether_requests_are_answered(
    client: FlaskClient, operations: FakeOperations, path: str, health: Health, status: int, error: str | None
) -> None:
    operations.state = health
    answer = client.get(path)
    assert answer.status_code == status
    said = answer.get_json()
    assert (said["status"], said["reasons"]) == (health.status, list(health.reasons))
    # llama.cpp's clients look for this error while a model loads
    wanted = {"message": error, "type": "unavailable_error", "code": 503} if error else None
    assert said.get("error") == wanted
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_a_process_that_answers_is_alive_whatever_its_models_do(
    client: FlaskClient, operations: FakeOperations
) -> None:
    operations.state = Health(status="degraded", ready=False)
    assert (client.get("/health/live").status_code, client.get("/health/live").get_json()["status"]) == (200, "ok")


def test_metrics_are_open_here_and_need_a_key_elsewhere(operations: FakeOperations) -> None:
    client = create_app(services(gate=FakeGate(nobody=None), operations=operations), SETTINGS).test_client()
    answer = client.get("/metrics", headers={"Accept": "text/plain"})
    assert (answer.status_code, answer.data) == (200, b"accepted text/plain\n")
    assert answer.content_type == "text/plain; version=1.0.0; charset=utf-8"
    elsewhere = {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}
    assert client.get("/metrics", **elsewhere).status_code == 401
    assert client.get("/v1/edgekit/device").status_code == 401


def test_the_device_is_told(client: FlaskClient) -> None:
    assert client.get("/v1/edgekit/device").get_json() == {"status": "ok", "reasons": []}


# --- every request --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nowhere", "/v1/chat/completions"])
def test_every_response_has_an_id(client: FlaskClient, path: str) -> None:
    first, second = client.get(path).headers["x-request-id"], client.get(path).headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{32}", first)
    assert first != second


@pytest.mark.parametrize(
    ("sent", "kept"), [("trace-1.A_b", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("é", False)]
)
def test_an_id_that_a_client_sent_is_kept_if_it_is_harmless(client: FlaskClient, sent: str, kept: bool) -> None:
    answer = client.get("/health", headers={"X-Request-Id": sent.encode().decode("latin-1")})
    assert (answer.headers["x-request-id"] == sent) == kept


def test_responses_are_counted_by_rule_and_never_by_what_was_typed(
    client: FlaskClient, operations: FakeOperations
) -> None:
    for path, host in (
        ("/v1/models/tiny", "localhost"),
        ("/v1/models/" + "x" * 50, "localhost"),
        ("/nowhere/" + "x" * 50, "localhost"),
        ("/health", "evil.example"),
    ):
        client.get(path, headers={"Host": host}).close()
    assert operations.responses == [
        ("GET", "/v1/models/<path:name>", 200),
        ("GET", "/v1/models/<path:name>", 404),
        ("GET", "unmatched", 404),
        ("GET", "/health", 403),
    ]


@pytest.mark.parametrize("stream", [True, False])
def test_the_log_has_a_line_for_each_request_with_its_tokens_and_without_its_text(
    client: FlaskClient, operations: FakeOperations, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    with caplog.at_level(logging.INFO):
        answer = client.post("/v1/chat/completions", json=CHAT | {"stream": stream})
        answer.get_data()
        answer.close()
    (line,) = (record for record in caplog.records if record.name == "device_agent.http.access")
    fields: dict[str, Any] = vars(line)["fields"]
    assert line.getMessage() == "POST /v1/chat/completions 200"
    assert fields["ms"] >= 0
    assert {name: fields[name] for name in ("route", "status", "model", "finish")} == {
        "route": "/v1/chat/completions",
        "status": 200,
        "model": "tiny",
        "finish": "stop",
    }
    assert fields["input_tokens"] > 0
    assert fields["output_tokens"] == 3
    assert "secret" not in caplog.text + str(fields)
    assert operations.responses == [("POST", "/v1/chat/completions", 200)]
    assert request_id.get() == answer.headers["x-request-id"]


def test_a_refused_request_has_its_line_too(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        client.post("/v1/chat/completions", json=CHAT | {"model": "none"}).close()
    assert "POST /v1/chat/completions 404" in caplog.text

"""Every route in process: shapes of answers, and one clear error for every bad request."""

import json
import logging
from typing import Any

import pytest
from flask.testing import FlaskClient

from device_agent.engine.records import Generation, Piece, Sampling
from device_agent.http import create_app
from edgekit.chat import Message
from edgekit.errors import ContextOverflow, EdgekitError, Overloaded, ShuttingDown, TemplateError
from tests.device_agent.http.conftest import SETTINGS
from tests.fakes import FakeService, script, services

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
PLAIN = {"model": "tiny", "prompt": "Hello"}
TIMINGS = {
    "prompt_n": 4,
    "prompt_ms": 250.0,
    "prompt_per_second": 16.0,
    "predicted_n": 11,
    "predicted_ms": 500.0,
    "predicted_per_second": 20.0,
}
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 4,
    "total_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
ROUTES = [
    pytest.param(prefix + path, body, id=prefix + path)
    for prefix in ("", "/v1")
    for path, body in (("/chat/completions", CHAT), ("/completions", PLAIN))
]
BOTH = pytest.mark.parametrize(("path", "body"), ROUTES)


def events(raw: bytes) -> list[Any]:
    """Decoded events of a stream, without comments; the end is the word [DONE]."""
    blocks = raw.decode().split("\n\n")
    assert blocks.pop() == ""
    payloads = [block.removeprefix("data: ") for block in blocks if not block.startswith(":")]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def test_health_says_ok(client: FlaskClient) -> None:
    answer = client.get("/health")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok", "reasons": []})


def test_a_chat_answer_has_openais_shape(client: FlaskClient) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT)
    assert answer.mimetype == "application/json"
    body = answer.get_json()
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body.pop("system_fingerprint").startswith("fp_")
    assert body == {
        "object": "chat.completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "timings": TIMINGS,
    }


def test_a_completion_has_openais_shape(client: FlaskClient) -> None:
    body = client.post("/v1/completions", json=PLAIN).get_json()
    assert body.pop("id").startswith("cmpl-")
    assert isinstance(body.pop("created"), int)
    assert body.pop("system_fingerprint").startswith("fp_")
    assert body == {
        "object": "text_completion",
        "model": "tiny",
        "choices": [{"index": 0, "text": "Paris.", "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "timings": TIMINGS,
    }


def test_a_chat_stream_has_role_then_text_then_reason(client: FlaskClient) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert answer.mimetype == "text/event-stream"
    *chunks, done = events(answer.data)
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0] for chunk in chunks] == [
        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        for delta, reason in [
            ({"role": "assistant", "content": ""}, None),
            ({"content": "Pa"}, None),
            ({"content": "ris"}, None),
            ({"content": "."}, None),
            ({}, "stop"),
        ]
    ]
    assert [chunk.get("timings") for chunk in chunks] == [None, None, None, None, TIMINGS]
    assert not any("usage" in chunk for chunk in chunks)


def test_a_completion_stream_has_text_then_reason(client: FlaskClient) -> None:
    *chunks, done = events(client.post("/v1/completions", json=PLAIN | {"stream": True}).data)
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert [(chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [
        ("Pa", None),
        ("ris", None),
        (".", None),
        ("", "stop"),
    ]
    assert chunks[-1]["timings"] == TIMINGS


@BOTH
def test_all_chunks_of_a_stream_belong_together(client: FlaskClient, path: str, body: Any) -> None:
    *chunks, _ = events(client.post(path, json=body | {"stream": True}).data)
    for name in ("id", "created", "model", "system_fingerprint"):
        assert len({chunk[name] for chunk in chunks}) == 1


@BOTH
def test_usage_ends_a_stream_when_asked_for(client: FlaskClient, path: str, body: Any) -> None:
    wanted = body | {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = events(client.post(path, json=wanted).data)
    assert done == "[DONE]"
    assert (last["choices"], last["usage"]) == ([], USAGE)
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)


def test_two_answers_have_two_ids(client: FlaskClient) -> None:
    assert len({client.post("/v1/completions", json=PLAIN).get_json()["id"] for _ in range(2)}) == 2


def test_the_fingerprint_changes_with_the_version() -> None:
    from device_agent.http.replies.common import fingerprint
    from tests.fakes import manifest

    asked = [(version, adapter) for version in ("1.0", "1.1") for adapter in (None, "one", "two")]
    assert len({fingerprint(manifest(version=version), adapter) for version, adapter in asked}) == len(asked)


@pytest.mark.parametrize("stream", [False, True])
def test_length_is_a_reason_to_finish(stream: bool) -> None:
    client = create_app(services(FakeService(replies=script("a", finish="length"))), SETTINGS).test_client()
    raw = client.post("/v1/completions", json=PLAIN | {"stream": stream}).data
    last = events(raw)[-2] if stream else json.loads(raw)
    assert last["choices"][0]["finish_reason"] == "length"


def test_text_on_the_last_piece_is_sent_before_the_reason() -> None:
    pieces = [Piece(text="all", tokens=(1, 2), finish="stop")]
    client = create_app(services(FakeService(replies=pieces)), SETTINGS).test_client()
    chunks = events(client.post("/v1/completions", json=PLAIN | {"stream": True}).data)
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["all", ""]
    assert client.post("/v1/completions", json=PLAIN).get_json()["choices"][0]["text"] == "all"


def test_the_engine_gets_the_whole_request(client: FlaskClient, service: FakeService) -> None:
    client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 9, "stop": "x", "temperature": 0, "seed": 3})
    assert service.conversations == [(Message(role="user", content="Hello"),)]
    assert service.generations == [
        Generation(
            prompt=service.text_prompt("Hello"),
            sampling=Sampling(temperature=0.0, seed=3),
            max_tokens=9,
            stop=("x",),
        )
    ]


@pytest.mark.parametrize(("prompt", "ids"), [("AB", (65, 66)), ([65, 7], (65, 7))])
def test_a_prompt_reaches_the_engine_as_ids(
    client: FlaskClient, service: FakeService, prompt: Any, ids: tuple[int, ...]
) -> None:
    client.post("/v1/completions", json=PLAIN | {"prompt": prompt})
    assert service.generations[0].prompt == ids


@pytest.mark.parametrize("prompt", ["", [], [""]])
def test_an_empty_prompt_is_refused(client: FlaskClient, prompt: Any) -> None:
    answer = client.post("/v1/completions", json=PLAIN | {"prompt": prompt})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "prompt")


@BOTH
def test_an_sdks_dummy_key_is_no_problem(client: FlaskClient, path: str, body: Any) -> None:
    assert client.post(path, json=body, headers={"Authorization": "Bearer none"}).status_code == 200


# --- bad requests ---------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"n": 9}, "n"),
        ({"logit_bias": {"1": 1000}}, "logit_bias"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"no_such_thing": 1}, "no_such_thing"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_parameter_is_named(
    client: FlaskClient, path: str, body: Any, fields: Any, param: str, stream: bool
) -> None:
    answer = client.post(path, json=body | {"stream": stream} | fields)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param)


@BOTH
def test_a_charset_of_utf8_is_fine(client: FlaskClient, path: str, body: Any) -> None:
    answer = client.post(path, data=json.dumps(body), content_type="application/json; charset=UTF-8")
    assert answer.status_code == 200


@BOTH
def test_a_body_of_just_the_limit_is_read(client: FlaskClient, path: str, body: Any) -> None:
    raw = json.dumps(body).ljust(SETTINGS.body_limit_bytes).encode()
    assert client.post(path, data=raw, content_type="application/json").status_code == 200


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/web/nowhere.js", "/web/../app.py", "/v2/models"])
def test_an_unknown_route_is_not_found(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.get_json()["error"]["type"]) == (404, "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/completions"), ("GET", "/completions"), ("POST", "/health"), ("DELETE", "/")]
)
def test_a_wrong_method_is_not_allowed(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == 405
    assert answer.get_json()["error"]["message"]
    assert answer.headers["Allow"]


# --- errors of the engine -------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (ContextOverflow(300, 200), 400, "context_length_exceeded"),
        (TemplateError("two user turns"), 400, None),
        (Overloaded("8 requests wait", 3), 503, "overloaded"),
        (ShuttingDown("it was asked to"), 503, "shutting_down"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_of_the_engine_has_its_own_status(
    path: str, body: Any, stream: bool, problem: EdgekitError, status: int, code: str | None
) -> None:
    client = create_app(services(FakeService(refusal=problem)), SETTINGS).test_client()
    answer = client.post(path, json=body | {"stream": stream})
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (status, code, str(problem))
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_a_context_overflow_has_both_numbers_and_the_known_wording() -> None:
    client = create_app(services(FakeService(refusal=ContextOverflow(300, 200))), SETTINGS).test_client()
    error = client.post("/v1/chat/completions", json=CHAT).get_json()["error"]
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (300, 200)
    assert "maximum context length is 200 tokens" in error["message"]


def test_a_busy_agent_says_when_to_come_back() -> None:
    client = create_app(services(FakeService(refusal=Overloaded("8 requests wait", 3))), SETTINGS).test_client()
    assert client.post("/v1/completions", json=PLAIN).headers["Retry-After"] == "3"


@BOTH
def test_a_bug_is_a_plain_500_logged_once(path: str, body: Any, caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService(refusal=ZeroDivisionError("secret detail"))
    client = create_app(services(service), SETTINGS).test_client()
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.get_json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    service.refusal = None
    service.replies = script("a")
    assert client.post(path, json=body).status_code == 200


@BOTH
@pytest.mark.parametrize(
    ("problem", "kind"),
    [(Overloaded("too hot"), "server_error"), (ZeroDivisionError("secret detail"), "server_error")],
    ids=["known", "bug"],
)
def test_an_error_in_the_middle_ends_the_stream_with_it(path: str, body: Any, problem: Exception, kind: str) -> None:
    client = create_app(services(FakeService(replies=[Piece(text="a", tokens=(1,)), problem])), SETTINGS).test_client()
    raw = client.post(path, json=body | {"stream": True}).data
    *_, text, last = events(raw)
    assert text["choices"]
    assert (set(last), last["error"]["type"]) == ({"error"}, kind)
    assert b"secret" not in raw


@BOTH
def test_an_error_in_the_middle_is_the_status_of_a_whole_answer(path: str, body: Any) -> None:
    service = FakeService(replies=[Piece(text="a", tokens=(1,)), Overloaded("too hot")])
    assert create_app(services(service), SETTINGS).test_client().post(path, json=body).status_code == 503


@BOTH
def test_an_answer_that_the_agent_cut_short_is_no_success(path: str, body: Any) -> None:
    client = create_app(services(FakeService(replies=script("a", finish="cancelled"))), SETTINGS).test_client()
    assert client.post(path, json=body).get_json()["error"]["code"] == "shutting_down"
    *_, last = events(client.post(path, json=body | {"stream": True}).data)
    assert last["error"]["code"] == "shutting_down"
    assert "cancelled" not in json.dumps(last)


# --- headers --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/v1/chat/completions", "/nowhere"])
def test_every_response_is_hardened(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_page_files_are_cached_by_their_content(client: FlaskClient) -> None:
    first = client.get("/web/base.css")
    assert first.mimetype == "text/css"
    again = client.get("/web/base.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")

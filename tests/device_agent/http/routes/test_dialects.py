"""/v1/responses and /v1/messages: whole and streamed, the same conversation underneath."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from device_agent.engine.records import Piece
from device_agent.http import HttpSettings, create_app
from edgekit import strategies
from edgekit.errors import ContextOverflow, InvalidRequest, Overloaded
from tests.fakes import FakeBook, FakeGate, FakeModels, FakeService, script, services

ASK = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "tiny", "input": "Hello", "max_output_tokens": 20},
    "/v1/messages": {"model": "tiny", "messages": ASK, "max_tokens": 20},
}
either = pytest.mark.parametrize("path", list(BODIES))


def events_of(raw: bytes) -> list[dict[str, Any]]:
    """Data of the events, each of which must carry its type as its name too."""
    found = []
    for block in raw.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            value = json.loads(lines["data"])
            assert lines["event"] == value["type"]
            found.append(value)
    return found


def streamed(client: FlaskClient, path: str, **fields: Any) -> list[dict[str, Any]]:
    answer = client.post(path, json=BODIES[path] | {"stream": True} | fields)
    assert answer.status_code == 200
    assert answer.mimetype == "text/event-stream"
    return events_of(answer.data)


def test_a_response_in_one_piece(client: FlaskClient) -> None:
    answer = client.post("/v1/responses", json=BODIES["/v1/responses"]).get_json()
    assert answer["object"] == "response"
    assert answer["status"] == "completed"
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [{"type": "output_text", "text": "Paris.", "annotations": [], "logprobs": []}]
    assert answer["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9,
    }
    assert answer["max_output_tokens"] == 20


def test_a_streamed_response_adds_up_to_the_whole_one(client: FlaskClient) -> None:
    events = streamed(client, "/v1/responses")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta",) * 3,
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    final = events[-1]["response"]
    assert text == final["output"][0]["content"][0]["text"] == "Paris."
    assert {event["item_id"] for event in events if "item_id" in event} == {final["output"][0]["id"]}
    assert final["id"] == events[0]["response"]["id"]


def test_a_response_that_was_cut_is_incomplete(service: FakeService, client: FlaskClient) -> None:
    service.replies = script("Par", finish="length")
    answer = client.post("/v1/responses", json=BODIES["/v1/responses"]).get_json()
    assert answer["status"] == answer["output"][0]["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert streamed(client, "/v1/responses")[-1]["type"] == "response.incomplete"


def test_a_message_in_one_piece(client: FlaskClient) -> None:
    answer = client.post("/v1/messages", json=BODIES["/v1/messages"]).get_json()
    assert answer["content"] == [{"type": "text", "text": "Paris."}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    assert answer["usage"] == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 3,
        "output_tokens": 4,
    }


def test_a_streamed_message_adds_up_to_the_whole_one(client: FlaskClient) -> None:
    events = streamed(client, "/v1/messages")
    assert [event["type"] for event in events] == [
        *("message_start", "content_block_start"),
        *("content_block_delta",) * 3,
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta") == "Paris."
    assert events[0]["message"]["usage"]["input_tokens"] == 5
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] == 4


def test_a_message_says_which_stop_sequence_ended_it(service: FakeService, client: FlaskClient) -> None:
    service.replies = [Piece(text="Par", tokens=(1,)), Piece(text="", tokens=(2,), finish="stop", stopped_by="is")]
    body = BODIES["/v1/messages"] | {"stop_sequences": ["is"]}
    answer = client.post("/v1/messages", json=body).get_json()
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "is")
    assert service.generations[0].stop == ("is",)


def test_counting_gives_the_length_of_the_prompt(service: FakeService, client: FlaskClient) -> None:
    answer = client.post("/v1/messages/count_tokens", json={"model": "tiny", "messages": ASK})
    assert answer.get_json() == {"input_tokens": 5}
    assert not service.generations


@either
def test_errors_have_their_status_and_the_dialects_shape(path: str, service: FakeService, client: FlaskClient) -> None:
    anthropic = path == "/v1/messages"
    unknown = client.post(path, json=BODIES[path] | {"model": "gpt-4"})
    assert unknown.status_code == 404
    assert unknown.get_json()["error"]["type"] == "not_found_error"
    assert (unknown.get_json().get("type") == "error") == anthropic
    wrong = client.post(path, json=BODIES[path] | {"temperature": "hot"})
    assert wrong.status_code == 400
    service.refusal = ContextOverflow(300, 200)
    assert client.post(path, json=BODIES[path]).status_code == 400
    service.refusal = Overloaded("8 requests wait", 7)
    busy = client.post(path, json=BODIES[path])
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "7")
    assert busy.get_json()["error"]["type"] == ("overloaded_error" if anthropic else "server_error")


@either
def test_an_error_in_a_stream_is_its_last_event(path: str, service: FakeService, client: FlaskClient) -> None:
    service.replies = [Piece(text="a", tokens=(1,)), Overloaded("too hot")]
    last = streamed(client, path)[-1]
    assert last["type"] == "error"
    assert "too hot" in json.dumps(last)


@either
@pytest.mark.parametrize("stream", [False, True])
def test_a_visit_is_noted_once_and_everything_given_back(path: str, stream: bool) -> None:
    models, gate, book = FakeModels(FakeService(replies=script("a", "b"))), FakeGate(), FakeBook()
    app = create_app(services(models=models, gate=gate, book=book), HttpSettings(poll_s=0.02))
    answer = app.test_client().post(path, json=BODIES[path] | {"stream": stream})
    assert answer.data
    answer.close()
    assert not models.held
    assert not gate.admitted
    (served,) = book.pages
    assert (served.dialect, served.input_tokens, served.output_tokens) == (path.rpartition("/")[2], 5, 3)
    assert served.finish == "stop"


@either
def test_a_body_that_is_no_json_is_refused(path: str, client: FlaskClient) -> None:
    assert client.post(path, data=b"{", content_type="application/json").status_code == 400
    assert client.post(path, data=b"{}", content_type="text/plain").status_code == 415
    assert client.get(path).status_code == 405


# --- an owner's own ways of reasoning -------------------------------------------------------

CHAT = {"model": "tiny", "messages": ASK, "max_tokens": 20}


@pytest.fixture
def owned(tmp_path: Path, service: FakeService) -> FlaskClient:
    path = tmp_path / "strategies.toml"
    path.write_text('[strategy.brief]\ndescription = "short"\nsystem = "Be brief."\n', encoding="utf-8")
    behind = replace(services(service), strategies=strategies.load(path))
    return create_app(behind, HttpSettings(poll_s=0.02)).test_client()


@pytest.mark.parametrize(("path", "body"), [*BODIES.items(), ("/v1/chat/completions", CHAT)])
def test_every_dialect_knows_the_owner_s_strategies(
    path: str, body: dict[str, Any], owned: FlaskClient, service: FakeService
) -> None:
    assert owned.post(path, json=body | {"edgekit": {"strategy": "brief"}}).status_code == 200
    assert owned.post(path, json=body | {"model": "tiny@brief"}).status_code == 200
    for conversation in service.conversations:
        assert conversation[0].content == "Be brief."
    assert owned.post(path, json=body | {"edgekit": {"strategy": "verbose"}}).status_code == 400


def test_counting_counts_what_a_strategy_adds(owned: FlaskClient) -> None:
    body = {"model": "tiny@brief", "messages": ASK}
    assert owned.post("/v1/messages/count_tokens", json=body).get_json() == {"input_tokens": len("Be brief.\nHello")}


# --- a parameter has its own name in each dialect -------------------------------------------


@pytest.mark.parametrize(
    ("path", "fields", "problem", "param"),
    [
        ("/v1/responses", {}, "response_format", "text.format"),
        ("/v1/responses", {"max_output_tokens": 999}, None, "max_output_tokens"),
        ("/v1/messages", {"max_tokens": 999}, None, "max_tokens"),
    ],
)
def test_what_the_model_cannot_do_is_refused_by_the_dialects_own_name(
    path: str, fields: dict[str, Any], problem: str | None, param: str, service: FakeService, client: FlaskClient
) -> None:
    service.refusal = InvalidRequest("not so", param=problem) if problem else None
    answer = client.post(path, json=BODIES[path] | fields)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param)

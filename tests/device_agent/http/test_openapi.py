"""The document says what the agent does: every route, every parameter, every status."""

import json
from typing import Any

import msgspec
import pytest

from device_agent.http import HttpSettings, create_app, openapi
from device_agent.http.app import API
from device_agent.http.openapi import Query, Route
from device_agent.http.replies.shapes import ChatChunk, ChatCompletion, Detokenized
from device_agent.http.schema.chat import CHAT
from tests.fakes import FakeService, script, services

PAGE = {"/", "/web/{name}", "/openapi.json"}
"""For people, and the document itself."""


def served() -> Any:
    return create_app(services(FakeService(replies=script("a"))), HttpSettings())


def document() -> Any:
    return served().test_client().get("/openapi.json").get_json()


def bare(path: str) -> str:
    return path.removeprefix("/v1")


def test_every_route_that_is_served_is_described_and_the_other_way_round() -> None:
    rules = {
        (bare(openapi.path_of(rule.rule)), method.lower())
        for rule in served().url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if openapi.path_of(rule.rule) not in PAGE
    }
    told = {(bare(path), method) for path, methods in document()["paths"].items() for method in methods}
    assert told <= rules
    assert rules <= told


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(document())
    schemas = document()["components"]["schemas"]
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names
    assert names <= set(schemas)


def test_every_parameter_is_described_and_no_other_is_allowed() -> None:
    schema = document()["components"]["schemas"]["ChatBody"]
    assert set(schema["properties"]) == set(CHAT.names)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}
    assert schema["properties"]["store"] == {"enum": [False, None]}
    assert schema["properties"]["user"] == {"type": ["string", "null"]}
    assert schema["required"] == ["messages"]


def test_a_route_that_streams_says_so() -> None:
    content = document()["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}


def test_every_refusal_has_the_error_object() -> None:
    for methods in document()["paths"].values():
        for operation in methods.values():
            for status, said in operation["responses"].items():
                if status != "200":
                    assert said["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorReply"}


def test_operations_have_different_names() -> None:
    names = [operation["operationId"] for methods in document()["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)
    assert len([route for room in API for route in room.ROUTES]) <= len(names)


class Row(msgspec.Struct):
    name: str


def test_statuses_follow_from_what_a_route_is() -> None:
    count = Query(name="days", summary="How many.", schema={"type": "integer"})
    made = openapi.document(
        (
            Route(method="get", path="/open", summary="-", scope=None, reply="text/plain"),
            Route(method="get", path="/v1/things", summary="-", scope="infer", reply=Row, query=(count,)),
            Route(method="delete", path="/v1/things/{id}", summary="-", scope="admin", reply=Row, refusals=(400,)),
            Route(method="post", path="/v1/things", summary="-", scope="infer", reply=Row, request=CHAT),
        ),
        version="1.2",
    )
    assert made["info"]["version"] == "1.2"
    assert {
        (path, method): " ".join(operation["responses"])
        for path, methods in made["paths"].items()
        for method, operation in methods.items()
    } == {
        ("/open", "get"): "200 403 405 500",
        ("/v1/things", "get"): "200 400 401 403 405 429 500 503",
        ("/v1/things/{id}", "delete"): "200 400 401 403 404 405 429 500 503",
        ("/v1/things", "post"): "200 400 401 403 404 405 413 415 429 500 503",
    }
    security = [made["paths"][path][method]["security"] for path, method in [("/open", "get"), ("/v1/things", "get")]]
    assert security == [[], [{"key": []}, {}]]
    assert made["paths"]["/v1/things/{id}"]["delete"]["security"] == [{"key": []}]
    assert made["paths"]["/v1/things/{id}"]["delete"]["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    assert made["paths"]["/v1/things"]["get"]["parameters"][0]["name"] == "days"
    assert made["paths"]["/open"]["get"]["responses"]["200"]["content"] == {
        "text/plain": {"schema": {"type": "string"}}
    }


@pytest.mark.parametrize(
    ("path", "body", "shape"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "logprobs": True}, ChatCompletion),
        ("/detokenize", {"tokens": [65]}, Detokenized),
    ],
)
def test_a_reply_is_what_the_document_says(path: str, body: Any, shape: type[msgspec.Struct]) -> None:
    raw = served().test_client().post(path, json=body).get_json()
    assert msgspec.to_builtins(msgspec.convert(raw, shape)) == raw


def test_a_streams_events_are_what_the_document_says() -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "stream": True, "stream_options": {"include_usage": True}}
    raw = served().test_client().post("/v1/chat/completions", json=body).get_data(as_text=True)
    events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
    assert len(events) == 4
    for event in events:
        assert msgspec.to_builtins(msgspec.convert(event, ChatChunk)) == event

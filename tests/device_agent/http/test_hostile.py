"""What nobody should send: every route that takes a body answers it with one error object, and serves on."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from device_agent.access.keys import Key, KeyWish
from device_agent.http import create_app
from device_agent.http.app import API
from device_agent.http.services import Caller
from tests.device_agent.http.conftest import SETTINGS
from tests.fakes import FakeEncoder, FakeGate, FakeModels, FakeService, script, services

ROUTES = [route for room in API for route in room.ROUTES if route.request is not None]
PATHS = sorted({prefix + route.path.removeprefix("/v1") for route in ROUTES for prefix in ("", "/v1")})
CONTENT = {
    prefix + route.path.removeprefix("/v1")
    for route in ROUTES
    if route.request is not None and any(field.required for field in msgspec.structs.fields(route.request.shape))
    for prefix in ("", "/v1")
}
"""Paths of those that must be told something."""
METHODS = ("get", "put", "delete", "patch")
OTHERS = {(route.path.removeprefix("/v1"), route.method) for room in API for route in room.ROUTES}
EVERY = pytest.mark.parametrize("path", PATHS)

BODIES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{'model': 1}",
    "half of it": b'{"model":"tiny"',
    "an array": b"[]",
    "a number": b"1",
    "null": b"null",
    "nothing": b"{}",
    "not UTF-8": b'{"model":"tiny","user":"\xff"}',
    "UTF-16": '{"model":"tiny"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"model":"tiny"}',
    "a lone surrogate": b'{"model":"\\ud800"}',
    "a NUL": b'{"model":"tiny\x00"}',
    "NaN": b'{"model":NaN}',
    "minus infinity": b'{"model":-Infinity}',
    "a number beyond floats": b'{"model":1e400}',
    "a number of 5,000 digits": b'{"model":' + b"9" * 5_000 + b"}",
    "a key twice": b'{"model":"tiny","model":"tiny"}',
    "deep lists": b'{"messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep objects": b'{"metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
    "deep and unfinished": b"[" * 100_000,
    "a million lists": b'{"input":[' + b"[]," * 1_000_000 + b"[]]}",
    "60,000 keys": b"{" + b",".join(b'"%d":1' % number for number in range(60_000)) + b"}",
    "a key of a megabyte": b'{"' + b"a" * (1 << 20) + b'":1}',
    "a name of a megabyte": b'{"model":"' + b"a" * (1 << 20) + b'"}',
    "wrong types everywhere": b'{"model":1,"messages":"a","prompt":{},"input":5,"content":[],"tokens":"a"}',
}

WRONG = "invalid_request_error"
ANTHROPIC = {413: "request_too_large"}


class NoKeys:
    """Where keys would be, if one were made."""

    def all(self) -> Sequence[Key]:
        return ()

    def add(self, wish: KeyWish) -> tuple[Key, str]:
        raise AssertionError("a bad body made a key")

    def revoke(self, key_id: str) -> Key:
        raise AssertionError("a bad body revoked a key")


@pytest.fixture
def client() -> FlaskClient:
    models = FakeModels(FakeService(replies=script("a")), FakeEncoder())
    gate = FakeGate(nobody=Caller(scopes=frozenset({"infer", "admin"})))
    made = replace(services(models=models, gate=gate), keys=NoKeys())
    return create_app(made, SETTINGS).test_client()


def check_error(answer: Any, status: int) -> Any:
    assert answer.status_code == status
    error = answer.get_json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    anthropic = answer.request.path.removeprefix("/v1").startswith("/messages")
    assert error["type"] == (ANTHROPIC.get(status, WRONG) if anthropic else WRONG)
    assert 0 < len(error["message"]) < 2_000
    assert len(error["param"] or "") <= 200
    return error


@EVERY
@pytest.mark.parametrize("raw", BODIES.values(), ids=BODIES)
def test_a_bad_body_is_one_clear_error(client: FlaskClient, path: str, raw: bytes) -> None:
    answer = client.post(path, data=raw, content_type="application/json")
    if raw == b"{}" and path not in CONTENT:
        assert answer.status_code == 200
    else:
        check_error(answer, 400)


@EVERY
@pytest.mark.parametrize("name", ["no_such_thing", "__class__", "Model", "model ", ""])
def test_an_unknown_parameter_is_refused_everywhere(client: FlaskClient, path: str, name: str) -> None:
    assert check_error(client.post(path, json={name: 1}), 400)["param"] == name


@EVERY
@pytest.mark.parametrize(
    "said",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        "application/json, application/json",
        "application/json, text/plain",
        "application/json; charset=latin-1",
    ],
)
def test_a_body_that_is_not_said_to_be_json_is_refused(client: FlaskClient, path: str, said: str) -> None:
    assert "application/json" in check_error(client.post(path, data=b"{}", content_type=said), 415)["message"]


@EVERY
def test_a_body_over_the_limit_is_too_large(client: FlaskClient, path: str) -> None:
    raw = json.dumps({"model": "x" * (10 << 20)}).encode()
    answer = client.post(path, data=raw, content_type="application/json")
    assert "4,194,304" in check_error(answer, 413)["message"]


@pytest.mark.parametrize(
    ("path", "method"),
    [(path, method) for path in PATHS for method in METHODS if (path.removeprefix("/v1"), method) not in OTHERS],
)
def test_another_method_is_not_allowed(client: FlaskClient, path: str, method: str) -> None:
    answer = client.open(path, method=method)
    check_error(answer, 405)
    assert "POST" in answer.headers["Allow"]


RIGHT = {
    "messages": [{"role": "user", "content": "a"}],
    "prompt": "a",
    "input": "a",
    "content": "a",
    "tokens": [1],
    "max_tokens": 1,
}
FORMS = {route.path.removeprefix("/v1"): route.request for route in ROUTES if route.request is not None}


@pytest.mark.parametrize("path", [path for path in PATHS if "model" in FORMS[path.removeprefix("/v1")].names])
def test_an_unknown_model_is_not_found(client: FlaskClient, path: str) -> None:
    known = FORMS[path.removeprefix("/v1")].shape.__struct_fields__
    body = {name: value for name, value in RIGHT.items() if name in known}
    answer = client.post(path, json=body | {"model": "gpt-4"})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "model_not_found")
    assert client.post(path, json=body).status_code in {200, 400}

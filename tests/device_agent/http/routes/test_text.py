"""Tokens and prompts as llama.cpp's clients ask for them."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from device_agent.http import create_app
from edgekit.chat import Message, Tool
from edgekit.errors import TemplateError
from edgekit.manifest import SpecialTokens
from tests.device_agent.http.conftest import SETTINGS
from tests.device_agent.http.schema.bodies import call, function
from tests.fakes import VOCAB, FakeModels, FakeService, manifest, services

HELLO = [{"role": "user", "content": "Hello"}]


class Begun(FakeService):
    """A model whose texts begin with token 1, and whose token 200 is half a character."""

    def text_prompt(self, text: str) -> tuple[int, ...]:
        return (1, *super().text_prompt(text))

    def token_bytes(self, token_id: int) -> bytes:
        return b"\xc3" if token_id == 200 else super().token_bytes(token_id)

    def rendered(self, messages: Sequence[Message], *, tools: Sequence[Tool] = ()) -> str:
        if messages[0].content == "refuse":
            raise TemplateError("it does not like that")
        return f"{[tool.name for tool in tools]} {super().rendered(messages)}"


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    facts = msgspec.structs.replace(manifest(), tokens=SpecialTokens(eos=(2,), bos=1))
    models = FakeModels(Begun(manifest=facts))
    yield create_app(services(models=models), SETTINGS).test_client()
    assert models.held == []


def post(client: FlaskClient, path: str, **fields: Any) -> Any:
    return client.post(path, json=fields).get_json()


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_text_becomes_tokens_with_or_without_its_beginning(client: FlaskClient, prefix: str) -> None:
    path = f"{prefix}/tokenize"
    assert post(client, path, content="AB") == {"tokens": [65, 66]}
    assert post(client, path, content="AB", model="tiny", add_special=True) == {"tokens": [1, 65, 66]}
    assert post(client, path, content="") == {"tokens": []}
    assert post(client, path, content="", with_pieces=True) == {"tokens": []}


def test_tokens_may_come_with_their_text(client: FlaskClient) -> None:
    assert post(client, "/tokenize", content="A" + chr(200), with_pieces=True) == {
        "tokens": [{"id": 65, "piece": "A"}, {"id": 200, "piece": [0xC3]}]
    }


def test_tokens_become_text(client: FlaskClient) -> None:
    assert post(client, "/detokenize", tokens=[72, 105]) == {"content": "Hi"}
    assert post(client, "/detokenize", tokens=[]) == {"content": ""}


def test_a_conversation_becomes_a_prompt(client: FlaskClient) -> None:
    assert post(client, "/apply-template", messages=HELLO) == {"prompt": "[] Hello"}
    turns = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "c1", "content": "x"},
    ]
    assert post(client, "/apply-template", messages=turns, tools=[function()]) == {"prompt": "['look'] Hello\n\nx"}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": ["a"]}, "content"),
        ("/tokenize", {"content": "a", "parse_special": True}, "parse_special"),
        ("/tokenize", {"prompt": "a"}, "prompt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [VOCAB]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/apply-template", {}, "messages"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/apply-template", {"messages": [{"role": "user", "content": "refuse"}]}, "messages"),
        ("/apply-template", {"messages": HELLO, "tools": [{}]}, "tools[0].type"),
    ],
)
def test_a_wrong_parameter_is_named(client: FlaskClient, path: str, fields: Any, param: str) -> None:
    answer = client.post(path, json=fields)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param)

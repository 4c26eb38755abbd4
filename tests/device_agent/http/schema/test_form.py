"""Bytes to parameters: what is no JSON, what nobody knows, what asks for nothing, and the lenient way with them."""

import contextlib
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.http.schema import form
from device_agent.http.schema.chat import CHAT, AskedChat, parse_chat
from device_agent.http.schema.completions import COMPLETIONS, AskedCompletion, parse_completion
from edgekit.errors import InvalidRequest
from tests.device_agent.http.schema.bodies import HELLO, chat, completion, function, lenient_chat

START = b'{"model":"tiny","messages":[{"role":"user","content":"a"}]'


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "expected|Expected"),
        (b"null", "Expected"),
        (START, "not valid JSON"),
        (START + b"}}", "not valid JSON"),
        (b"\xef\xbb\xbf" + START + b"}", "not valid JSON"),
        (START + b',"temperature":NaN}', "not valid JSON"),
        (START + b',"temperature":Infinity}', "not valid JSON"),
        (START + b',"temperature":-Infinity}', "not valid JSON"),
        (START + b',"metadata":{"a":NaN}}', "not valid JSON"),
        (START + b',"temperature":1e400}', "out of range"),
        (START + b',"user":"\xff"}', "UTF-8"),
        (START + b',"user":"\\ud800"}', "not valid JSON"),
        (START + b',"tools":[{"type":"function","function":{"name":"a","description":"\\ud800"}}]}', "not valid JSON"),
        ((START + b"}").decode().encode("utf-16"), "UTF-8"),
        (START + b',"metadata":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}", "nested"),
        (START + b',"metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", "nested"),
        (b"[" * 10_000, "nested|Expected"),
        (START + b',"metadata":{"a":[' + b"[]," * 200_000 + b"[]]}}", "brackets"),
        (START + b',"max_tokens":' + b"9" * 5_000 + b"}", "out of range"),
        (START + b',"metadata":{"a":' + b"9" * 5_000 + b"}}", "out of range"),
    ],
    ids=lambda value: str(value[-40:]),
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        parse_chat(body)


@pytest.mark.parametrize(
    "body",
    [
        START + b',"seed":1,"seed":2}',
        START + b',"metadata":{"seed":1,"seed":1}}',
        b'{"messages":[{"role":"user","seed":"a","seed":"b"}]}',
        START + b',"tools":[{"type":"function","function":{"name":"a","parameters":{"seed":1,"seed":{}}}}]}',
    ],
)
def test_a_key_that_is_given_twice_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="'seed' is given twice") as refused:
        parse_chat(body)
    assert refused.value.param == "seed"


def test_long_numbers_in_labels_are_no_problem() -> None:
    raw = START + b',"metadata":{"a":' + b"9" * 200 + b',"b":0.' + b"1" * 5_000 + b"}}"
    assert parse_chat(raw).model == "tiny"


# --- names ----------------------------------------------------------------------------------


def test_an_unknown_parameter_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(InvalidRequest, match=r"'temprature'.*'temperature'") as refused:
        chat(temprature=1)
    assert refused.value.param == "temprature"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "a", "extra": 1}]}, "messages[0].extra"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]},
            "messages[0].content[0].x",
        ),
        ({"stream_options": {"usage": True}}, "stream_options.usage"),
        ({"tools": [function(strikt=True)]}, "tools[0].function.strikt"),
        ({"response_format": {"type": "text", "x": 1}}, "response_format.x"),
        ({"edgekit": {"mode": "direct"}}, "edgekit.mode"),
        ({"tool_choice": {"type": "function", "x": 1}}, "tool_choice.x"),
    ],
)
def test_an_unknown_name_inside_a_parameter_is_refused_by_its_place(fields: Any, param: str) -> None:
    with pytest.raises(InvalidRequest, match="Unknown parameter") as refused:
        chat(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize("name", ["echo", "best_of", "suffix"])
def test_chat_does_not_take_parameters_of_completions(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**{name: None})
    assert refused.value.param == name


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"guided_regex": "a"}, '"regex"'),
        ({"guided_grammar": "a"}, '"lark"'),
        ({"guided_json": {}}, "response_format.json_schema.schema"),
        ({"prompt": "a"}, "/v1/completions"),
    ],
)
def test_another_servers_parameter_is_refused_with_ours(fields: Any, hint: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    assert hint in str(refused.value)


def test_completions_say_where_messages_go() -> None:
    with pytest.raises(InvalidRequest, match="/v1/chat/completions"):
        completion(messages=HELLO)


def test_a_schema_of_the_users_may_have_any_names() -> None:
    schema = {"type": "object", "properties": {"whatever": {"anything": 1}}}
    assert chat(tools=[function(parameters=schema)]).request.tools


# --- values that ask for nothing ------------------------------------------------------------


@pytest.mark.parametrize(("form_", "parse"), [(CHAT, chat), (COMPLETIONS, completion)], ids=["chat", "completions"])
def test_a_value_that_asks_for_nothing_is_accepted(form_: Any, parse: Any) -> None:
    for name, values in form_.neutral.items():
        for value in (*values, "null"):
            assert parse(**{name: json.loads(value)}) == parse(), (name, value)


@pytest.mark.parametrize(
    ("parse", "name", "value"),
    [
        (chat, "store", True),
        (chat, "store", 0),
        (chat, "functions", [{"name": "f"}]),
        (chat, "modalities", ["text", "audio"]),
        (chat, "audio", {"voice": "x"}),
        (chat, "web_search_options", {}),
        (chat, "reasoning_effort", "high"),
        (chat, "prediction", {"type": "content", "content": "x"}),
        (completion, "best_of", 2),
        (completion, "suffix", "x"),
    ],
)
def test_a_value_that_would_be_ignored_is_refused_by_name(parse: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="not supported") as refused:
        parse(**{name: value})
    assert refused.value.param == name


# --- lenient --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"temprature": 1},
        {"store": True},
        {"reasoning_effort": "high"},
        {"messages": [HELLO[0] | {"extra": 1}]},
        {"stream_options": {"other": 1}},
    ],
)
def test_a_lenient_agent_drops_what_it_does_not_know(fields: Any) -> None:
    assert lenient_chat(**fields) == chat()


@pytest.mark.parametrize("fields", [{"temperature": 5}, {"n": 0}, {"messages": []}, {"user": 5}, {"top_logprobs": 3}])
def test_a_lenient_agent_still_checks_what_it_knows(fields: Any) -> None:
    with pytest.raises(InvalidRequest):
        lenient_chat(**fields)


def test_a_lenient_agent_logs_each_name_once(caplog: pytest.LogCaptureFixture) -> None:
    form._dropped.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            lenient_chat(temprature="secret", guided_jason=1)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert "temprature" in caplog.text
    assert "secret" not in caplog.text


def test_a_flood_of_names_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        lenient_chat(**{f"flood{number}": 1 for number in range(1_000)})
    assert len(caplog.records) <= 20


# --- anything -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["model", "messages", "prompt", *CHAT.names, *COMPLETIONS.names]) | st.text(max_size=8)


@given(st.dictionaries(NAMES, JSON, max_size=6), st.booleans(), st.booleans())
def test_any_json_gives_a_request_or_a_clear_refusal(fields: dict[str, Any], as_chat: bool, lenient: bool) -> None:
    body = json.dumps({"model": "tiny"} | fields).encode()
    with contextlib.suppress(InvalidRequest):
        found = parse_chat(body, lenient=lenient) if as_chat else parse_completion(body, lenient=lenient)
        assert isinstance(found, AskedChat | AskedCompletion)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_clear_refusal(noise: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_chat(noise)

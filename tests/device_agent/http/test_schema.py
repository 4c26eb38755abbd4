"""Bodies to requests: every parameter's good and bad values, as tables."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.records import Sampling
from device_agent.http.schema import ModelFacts, Request, TokenIds, parse_chat, parse_completion
from edgekit.chat import Message
from edgekit.errors import InvalidRequest, UnknownModel

FACTS = ModelFacts(name="tiny", context_tokens=200, vocab=300)
HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> Request:
    return parse_chat(json.dumps({"model": "tiny", "messages": HELLO} | fields).encode(), FACTS)


def completion(**fields: Any) -> Request:
    return parse_completion(json.dumps({"model": "tiny", "prompt": "Hello"} | fields).encode(), FACTS)


BOTH = pytest.mark.parametrize("parse", [chat, completion])


@BOTH
def test_defaults_are_those_of_openai(parse: Any) -> None:
    request = parse()
    assert request.sampling == Sampling()
    assert (request.max_tokens, request.stop, request.stream, request.include_usage) == (None, (), False, False)


@BOTH
def test_every_sampling_parameter_reaches_the_sampler(parse: Any) -> None:
    wanted = {
        "temperature": 0.5,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": -1.5,
        "frequency_penalty": 1.25,
        "seed": -7,
    }
    sampling = parse(**wanted, logit_bias={"5": -100, "299": 3.5}).sampling
    assert {name: getattr(sampling, name) for name in wanted} == wanted
    assert sampling.logit_bias == {5: -100.0, 299: 3.5}


NULLABLE = (
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "logit_bias",
    "stop",
    "stream",
    "stream_options",
)


@BOTH
def test_null_means_the_default(parse: Any) -> None:
    assert parse(**dict.fromkeys(NULLABLE)) == parse()


@BOTH
@pytest.mark.parametrize(
    ("given", "stop"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (["x"] * 4, ("x",) * 4)]
)
def test_stop_is_a_text_or_up_to_four(parse: Any, given: Any, stop: tuple[str, ...]) -> None:
    assert parse(stop=given).stop == stop


@BOTH
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_token_limit_count(parse: Any, name: str) -> None:
    assert parse(**{name: 200}).max_tokens == 200
    assert parse(max_tokens=5, max_completion_tokens=5).max_tokens == 5


WRONG_VALUES: dict[str, list[Any]] = {
    "temperature": [-0.1, 2.1, "1", True, [], {}],
    "top_p": [0, -1, 1.1, "1"],
    "top_k": [-1, 1.5, "1", 1 << 31],
    "min_p": [-0.1, 1.1],
    "repetition_penalty": [0, -1, 11],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1, "0"],
    "seed": [1 << 63, -(1 << 63) - 1, 1.5, "1", True],
    "max_tokens": [0, -1, 201, 10**30, 1.5, "5", True],
    "max_completion_tokens": [0, 201],
    "logit_bias": [[], {"a": 1}, {"-1": 1}, {"300": 1}, {"1": 101}, {"1": -101}, {"1": None}, "x"],
    "stop": ["", [""], ["a"] * 5, 5, [5], "x" * 501, ["x" * 501], {}],
    "stream": [1, "true", []],
    "stream_options": [True, {"include_usage": 1}, {"other": True}],
    "n": [2, 0, "1", True, 1.0, [1]],
    "user": [5, []],
    "model": [5, None, []],
}


@BOTH
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_VALUES.items() for value in values], ids=str
)
def test_a_wrong_value_is_refused_by_its_name(parse: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**{name: value})
    assert (refused.value.param or "").startswith(name)
    assert name in str(refused.value)


def test_a_token_limit_over_the_context_names_both_numbers() -> None:
    with pytest.raises(InvalidRequest, match=r"201.* 200 "):
        chat(max_tokens=201)


def test_contradicting_token_limits_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="contradict"):
        chat(max_tokens=5, max_completion_tokens=6)


def test_too_many_biases_are_refused() -> None:
    facts = ModelFacts(name="tiny", context_tokens=200, vocab=5000)
    bias = {str(token): 1 for token in range(1025)}
    body = json.dumps({"model": "tiny", "messages": HELLO, "logit_bias": bias}).encode()
    with pytest.raises(InvalidRequest) as refused:
        parse_chat(body, facts)
    assert refused.value.param == "logit_bias"


NEUTRAL: dict[str, list[Any]] = {
    "n": [1, None],
    "store": [False, None],
    "logprobs": [False, None],
    "top_logprobs": [None, 0],
    "response_format": [{"type": "text"}, None],
    "tools": [[], None],
    "functions": [[]],
    "tool_choice": ["none", "auto", None],
    "function_call": ["none", "auto", None],
    "parallel_tool_calls": [True, False],
    "modalities": [["text"], None],
    "service_tier": ["auto", "default", None],
    "reasoning_effort": [None],
    "prediction": [None],
    "user": ["me", None],
    "metadata": [{"a": "b"}, None],
    "prompt_cache_key": ["k"],
    "stream_options": [{}, {"include_usage": False}, {"include_obfuscation": False}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in NEUTRAL for value in NEUTRAL[name]], ids=str)
def test_a_value_that_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    assert chat(**{name: value}) == chat()


@pytest.mark.parametrize(
    ("name", "value"), [("n", 1), ("best_of", 1), ("echo", False), ("suffix", None), ("suffix", ""), ("logprobs", None)]
)
def test_a_completion_value_that_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    assert completion(**{name: value}) == completion()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprobs", True),
        ("top_logprobs", 5),
        ("store", True),
        ("store", 0),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {}}}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("web_search_options", {}),
        ("metadata", "text"),
    ],
    ids=str,
)
def test_a_value_that_would_be_ignored_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**{name: value})
    assert refused.value.param == name


@pytest.mark.parametrize(("name", "value"), [("best_of", 2), ("echo", True), ("suffix", "x"), ("logprobs", 0)])
def test_an_unsupported_completion_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completion(**{name: value})
    assert refused.value.param == name


def test_an_unknown_parameter_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(InvalidRequest, match=r"'temprature'.*'temperature'") as refused:
        chat(temprature=1)
    assert refused.value.param == "temprature"


@pytest.mark.parametrize("name", ["echo", "prompt", "best_of"])
def test_chat_does_not_take_parameters_of_completions(name: str) -> None:
    with pytest.raises(InvalidRequest):
        chat(**{name: None})


@BOTH
def test_another_model_is_unknown(parse: Any) -> None:
    with pytest.raises(UnknownModel, match=r"'gpt-4'.*tiny"):
        parse(model="gpt-4")


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "system", "content": "a"}, Message(role="system", content="a")),
        ({"role": "developer", "content": "a"}, Message(role="system", content="a")),
        ({"role": "user", "content": ""}, Message(role="user", content="")),
        ({"role": "assistant", "content": None}, Message(role="assistant", content="")),
        ({"role": "assistant"}, Message(role="assistant", content="")),
        (
            {"role": "assistant", "content": "a", "refusal": None, "tool_calls": None, "annotations": []},
            Message(role="assistant", content="a"),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            Message(role="user", content="a\nb"),
        ),
        ({"role": "user", "content": []}, Message(role="user", content="")),
    ],
    ids=str,
)
def test_a_message_becomes_role_and_text(turn: dict[str, Any], message: Message) -> None:
    assert chat(messages=[turn]).prompt == (message,)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("Hello", "messages"),
        ([5], "messages[0]"),
        ([{"content": "a"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages[0].content[0].text"),
        ([*HELLO, {"role": "tool", "content": "a", "tool_call_id": "x"}], "messages[1].tool_call_id"),
        ([*HELLO, {"role": "tool", "content": "a"}], "messages[1].role"),
        ([{"role": "robot", "content": "a"}], "messages[0].role"),
        ([{"role": "assistant", "content": "a", "tool_calls": [{}]}], "messages[0].tool_calls"),
        ([{"role": "user", "content": "a", "name": "Bob"}], "messages[0].name"),
        ([{"role": "user", "content": "a", "extra": 1}], "messages[0].extra"),
    ],
    ids=str,
)
def test_a_wrong_message_is_refused_by_its_place(messages: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(messages=messages)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("Hello", "Hello"),
        (["Hello"], "Hello"),
        ([1, 2, 299], TokenIds((1, 2, 299))),
        ([[1, 2]], TokenIds((1, 2))),
        ([], TokenIds(())),
    ],
    ids=str,
)
def test_a_prompt_is_text_or_token_ids(given: Any, prompt: Any) -> None:
    assert completion(prompt=given).prompt == prompt


@pytest.mark.parametrize(
    "prompt", [None, 5, {}, ["a", "b"], [[1], [2]], [1, "a"], [-1], [300], [True], [1.0], [None], [[[1]]]], ids=str
)
def test_a_wrong_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completion(prompt=prompt)
    assert refused.value.param == "prompt"


def test_several_prompts_are_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="One prompt per request"):
        completion(prompt=["a", "b"])


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
        (START + b',"temperature":1e400}', "temperature"),
        (START + b',"user":"\xff"}', "UTF-8"),
        (START + b',"user":"\\ud800"}', "not valid JSON"),
        ((START + b"}").decode().encode("utf-16"), "UTF-8"),
        (START + b',"metadata":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}", "nested"),
        (b"[" * 10_000, "nested|Expected"),
        (START + b',"max_tokens":' + b"9" * 5_000 + b"}", "max_tokens"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        parse_chat(body, FACTS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["model", "messages", "prompt", *WRONG_VALUES, *NEUTRAL]) | st.text(max_size=8)


@given(st.dictionaries(NAMES, JSON, max_size=6), st.booleans())
def test_any_json_gives_a_request_or_a_clear_refusal(fields: dict[str, Any], as_chat: bool) -> None:
    body = json.dumps({"model": "tiny"} | fields).encode()
    with contextlib.suppress(InvalidRequest, UnknownModel):
        found = parse_chat(body, FACTS) if as_chat else parse_completion(body, FACTS)
        assert isinstance(found, Request)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_clear_refusal(noise: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_chat(noise, FACTS)

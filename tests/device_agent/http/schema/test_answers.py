"""Parameters that chat and completions share: every one's good and bad values, as tables."""

from typing import Any

import pytest

from device_agent.engine.records import Grammar, Sampling
from device_agent.http.schema.sampling import ModelFacts, check_sampling
from edgekit.errors import InvalidRequest
from tests.device_agent.http.schema.bodies import chat, completion

FACTS = ModelFacts(context_tokens=200, vocab=300)
BOTH = pytest.mark.parametrize("parse", [chat, completion])


def asked(found: Any) -> Any:
    """What is asked of the model, whichever route it came by."""
    return getattr(found, "request", found)


@BOTH
def test_defaults_are_those_of_openai(parse: Any) -> None:
    found = parse()
    wanted = asked(found)
    assert wanted.sampling == Sampling()
    assert (wanted.max_tokens, wanted.stop, wanted.choices, wanted.top_logprobs) == (None, (), 1, None)
    assert (found.model, found.stream, found.include_usage) == ("tiny", False, False)


@BOTH
def test_who_names_no_model_gets_the_active_one(parse: Any) -> None:
    assert parse(model=None).model == ""


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
    sampling = asked(parse(**wanted, logit_bias={"5": -100, "299": 3.5})).sampling
    assert {name: getattr(sampling, name) for name in wanted} == wanted
    assert sampling.logit_bias == {5: -100.0, 299: 3.5}


NULLABLE = (
    *("model", "n", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "seed", "logit_bias", "stop", "stream", "stream_options", "grammar", "logprobs"),
)


@BOTH
def test_null_means_the_default(parse: Any) -> None:
    assert parse(**dict.fromkeys(NULLABLE)) == parse(model=None)


@BOTH
@pytest.mark.parametrize(
    ("given", "stop"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (["x"] * 4, ("x",) * 4)]
)
def test_stop_is_a_text_or_up_to_four(parse: Any, given: Any, stop: tuple[str, ...]) -> None:
    assert asked(parse(stop=given)).stop == stop


@BOTH
@pytest.mark.parametrize("count", [1, 8])
def test_up_to_eight_choices_may_be_asked_for(parse: Any, count: int) -> None:
    assert asked(parse(n=count)).choices == count


@BOTH
@pytest.mark.parametrize("kind", ["regex", "lark"])
def test_a_grammar_is_taken_as_it_is(parse: Any, kind: Any) -> None:
    assert asked(parse(grammar={"type": kind, "value": "a|b"})).grammar == Grammar(kind, "a|b")


WRONG_VALUES: dict[str, list[Any]] = {
    "temperature": [-0.1, 2.1, "1", True, [], {}],
    "top_p": [0, -1, 1.1, "1"],
    "top_k": [-1, 1.5, "1", 1 << 31],
    "min_p": [-0.1, 1.1],
    "repetition_penalty": [0, -1, 11],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1, "0"],
    "seed": [1 << 63, -(1 << 63) - 1, 1.5, "1", True],
    "max_tokens": [-1, 0, 10**30, 1.5, "5", True],
    "logit_bias": [
        [],
        {"a": 1},
        {"-1": 1},
        {"1": 101},
        {"1": -101},
        {"1": None},
        "x",
        {str(i): 1 for i in range(1025)},
    ],
    "stop": ["", [""], ["a"] * 5, 5, [5], "x" * 501, ["x" * 501], {}],
    "stream": [1, "true", []],
    "stream_options": [True, {"include_usage": 1}, {"other": True}],
    "n": [0, 9, -1, "1", True, 1.0, [1]],
    "user": [5, []],
    "metadata": [5, "text", {"a": "x" * 70_000}],
    "model": [5, [], "x" * 501],
    "grammar": [5, "a", {}, {"type": "regex"}, {"type": "ebnf", "value": "a"}, {"type": "regex", "value": ""}],
    "logprobs": ["1", [], -1, 21],
}


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{str(value)[:40]}")
        for name, values in WRONG_VALUES.items()
        for value in values
    ],
)
def test_a_wrong_value_is_refused_by_its_name(parse: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**{name: value})
    assert (refused.value.param or "").startswith(name)
    assert name in str(refused.value)


@BOTH
@pytest.mark.parametrize("options", [{}, {"include_usage": False}, {"include_obfuscation": False}])
def test_stream_options_may_ask_for_nothing(parse: Any, options: Any) -> None:
    assert parse(stream=True, stream_options=options) == parse(stream=True)


@BOTH
def test_usage_is_for_who_asks_and_streams(parse: Any) -> None:
    wanted = {"stream_options": {"include_usage": True}}
    assert (parse(stream=True, **wanted).include_usage, parse(**wanted).include_usage) == (True, False)


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [("user", "me"), ("user", None), ("safety_identifier", "i"), ("prompt_cache_key", "k"), ("metadata", {"a": "b"})],
)
def test_a_label_is_accepted_and_means_nothing(parse: Any, name: str, value: Any) -> None:
    assert parse(**{name: value}) == parse()


# --- what only the model can say ------------------------------------------------------------


def test_a_token_limit_over_the_context_names_both_numbers() -> None:
    check_sampling(Sampling(), 200, FACTS)
    with pytest.raises(InvalidRequest, match=r"201.* 200 ") as refused:
        check_sampling(Sampling(), 201, FACTS)
    assert refused.value.param == "max_tokens"


def test_a_bias_for_an_id_that_no_token_has_is_refused() -> None:
    check_sampling(Sampling(logit_bias={299: 1.0}), None, FACTS)
    with pytest.raises(InvalidRequest, match="0 to 299") as refused:
        check_sampling(Sampling(logit_bias={300: 1.0}), None, FACTS)
    assert refused.value.param == "logit_bias"

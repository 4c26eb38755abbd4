"""Grammars: what they let through, what is refused, and what one more than the tokenizer's ids are."""

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

from device_agent.engine.grammars.guide import MAX_SOURCE_BYTES, Grammars, Guide
from device_agent.engine.records import Grammar
from edgekit.errors import InvalidRequest
from tests.device_agent.engine.scripted import END, VOCAB, byte_tokenizer, spelled

OTHER_END = 0xFF
"""No text has this byte."""

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars() -> Iterator[Grammars]:
    """Byte tokens, two ids that end an answer, and logits for two ids that the tokenizer does not have."""
    made = Grammars(byte_tokenizer([b"{}"]), vocab=VOCAB, eos=(END, OTHER_END))
    yield made
    made.close()


def allowed(guide: Guide) -> set[int]:
    return set(np.flatnonzero(np.isfinite(guide.masked(np.zeros(VOCAB, np.float32)))).tolist())


def take(guide: Guide, text: str) -> None:
    for byte in text.encode():
        assert byte in allowed(guide)
        guide.take(byte)


def regex(source: str) -> Grammar:
    return Grammar("regex", source)


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def test_only_what_the_grammar_says_may_come_next(grammars: Grammars) -> None:
    guide = grammars.guide(regex("(ab|ac)d"))
    assert allowed(guide) == set(b"a")
    guide.take(ord("a"))
    assert allowed(guide) == set(b"bc")


def test_allowed_logits_are_as_they_were_and_the_others_minus_infinity(grammars: Grammars) -> None:
    logits = np.arange(VOCAB, dtype=np.float32)
    masked = grammars.guide(regex("[ab]")).masked(logits)
    assert masked[ord("a")] == ord("a")
    assert np.isneginf(np.delete(masked, list(b"ab"))).all()
    assert np.isfinite(logits).all()


def test_any_id_that_ends_an_answer_is_allowed_where_the_grammar_may_end(grammars: Grammars) -> None:
    guide = grammars.guide(regex("a*"))
    assert allowed(guide) == {*b"a", END, OTHER_END}
    assert not guide.complete


def test_a_grammar_is_complete_when_nothing_can_follow(grammars: Grammars) -> None:
    guide = grammars.guide(regex("ab"))
    take(guide, "a")
    assert not guide.complete
    take(guide, "b")
    assert guide.complete


def test_ids_beyond_the_tokenizers_are_never_allowed(grammars: Grammars) -> None:
    assert not allowed(grammars.guide(regex("(?s:.*)"))) & {258, 259}


@pytest.mark.parametrize("vocab", [100, 257, 500])
def test_the_model_may_have_fewer_logits_than_the_tokenizer_has_tokens_or_many_more(vocab: int) -> None:
    made = Grammars(byte_tokenizer(), vocab=vocab, eos=(END,) if vocab > END else (3,))
    guide = made.guide(regex("[a-z]b"))
    masked = guide.masked(np.zeros(vocab, np.float32))
    assert set(np.flatnonzero(np.isfinite(masked)).tolist()) == {*b"abcdefghijklmnopqrstuvwxyz"} & {*range(vocab)}
    assert guide.allowed([ord("a"), 10_000]) == 1
    made.close()


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (regex(re.escape("<|end|>")), "<|end|>"),
        (schema({"const": "a<|end|>"}), '"a<|end|>"'),
        (Grammar("json_schema", r'{"enum": ["\u003c|end|>"]}'), '"<|end|>"'),
        (schema({"type": "string", "pattern": r"^<\|end\|>$"}), '"<|end|>"'),
        (schema({"properties": {"<|end|>": {"type": "null"}}, "required": ["<|end|>"]}), '{"<|end|>": null}'),
        (Grammar("lark", 'start: "<|end|>"'), "<|end|>"),
    ],
    ids=["regex", "const", "escaped", "pattern", "property", "lark"],
)
def test_the_name_of_a_special_token_is_text(grammars: Grammars, grammar: Grammar, text: str) -> None:
    guide = grammars.guide(grammar)
    for byte in text.encode():
        assert END not in allowed(guide)
        take(guide, chr(byte))
    assert guide.complete or END in allowed(guide)


def test_such_a_name_that_hides_ends_no_answer(grammars: Grammars) -> None:
    with pytest.raises(InvalidRequest, match="no token"):
        guide = grammars.guide(regex("x<[|]end[|]>"))
        take(guide, "x")
        allowed(guide)


def test_lark_may_ask_for_a_special_token(grammars: Grammars) -> None:
    guide = grammars.guide(Grammar("lark", 'start: "a" <|end|>'))
    take(guide, "a")
    assert END in allowed(guide)


@pytest.mark.parametrize("text", ['{"name": "Ada", "age": 36}', '{"name": "", "age": -1}'])
def test_json_is_written_on_one_line(grammars: Grammars, text: str) -> None:
    guide = grammars.guide(schema(SCHEMA))
    take(guide, text)
    assert guide.complete


@pytest.mark.parametrize("text", ['{"age"', '{"name":"', '{"name": 1', '{"name": "abcdef', "[", " "])
def test_json_that_is_not_of_the_schema_cannot_be_written(grammars: Grammars, text: str) -> None:
    guide = grammars.guide(schema(SCHEMA))
    assert guide.allowed(list(text.encode())) < len(text)


def test_any_object_is_what_an_object_without_properties_means(grammars: Grammars) -> None:
    guide = grammars.guide(schema({"type": "object"}))
    take(guide, '{"a": [1, {"b": null}]}')
    assert guide.complete


def test_text_that_must_come_is_known(grammars: Grammars) -> None:
    assert spelled(grammars.guide(schema(SCHEMA)).forced()) == '{"name": "'
    assert list(grammars.guide(regex("a|b")).forced()) == []


def test_how_far_tokens_are_allowed_is_told_without_taking_them(grammars: Grammars) -> None:
    guide = grammars.guide(regex("abc"))
    assert [guide.allowed(list(text)) for text in (b"abc", b"abx", b"x")] == [3, 2, 0]
    assert allowed(guide) == set(b"a")


def test_guides_of_one_grammar_go_their_own_ways(grammars: Grammars) -> None:
    first, second = grammars.guide(regex("[ab]c")), grammars.guide(regex("[ab]c"))
    take(first, "a")
    assert (allowed(first), allowed(second)) == (set(b"c"), set(b"ab"))


def test_tokens_longer_than_a_byte_are_found(grammars: Grammars) -> None:
    assert allowed(grammars.guide(schema({"type": "object"}))) == {ord("{"), 257}


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        (Grammar("json_schema", "{"), "EOF"),
        (Grammar("json_schema", "[]"), "Expecting"),
        (schema({"type": "strin"}), "strin"),
        (schema(False), "object"),
        (schema({"uniqueItems": True, "type": "array"}), "uniqueItems"),
        (schema({"$ref": "https://example.com/schema.json"}), "example.com"),
        (schema({"$ref": "#"}), ""),
        (Grammar("json_schema", '{"items":' * 10_000 + "{}" + "}" * 10_000), "bytes"),
        (Grammar("json_schema", '{"items":' * 2_000 + "{}" + "}" * 2_000), "recursion"),
        (regex("("), "unclosed"),
        (regex("(?=a)b"), "look"),
        (Grammar("lark", "start: nobody"), "nobody"),
        (Grammar("lark", "start: <nobody>"), "nobody"),
        (Grammar("lark", ""), "start"),
        (Grammar("lark", "start: start"), "neither"),
        (regex("\ud800"), "Unicode"),
        (regex("a" * (MAX_SOURCE_BYTES + 1)), "bytes"),
    ],
    ids=lambda value: value.source[:40] if isinstance(value, Grammar) else value,
)
def test_what_is_no_grammar_is_refused_by_the_parameter_that_brought_it(
    grammars: Grammars, grammar: Grammar, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammars.guide(grammar)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600
    assert caught.value.param == ("response_format" if grammar.kind == "json_schema" else "grammar")


@pytest.mark.parametrize(
    "value",
    [
        {
            "$defs": {"a": {"prefixItems": [{"$ref": "#/$defs/b"}] * 9}, "b": {"items": {"$ref": "#/$defs/a"}}},
            "$ref": "#/$defs/a",
        },
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
        {"enum": [f"value {i}" for i in range(3_000)]},
        {"anyOf": [{"type": "object", "properties": {f"p{i}": {"type": "string"}}} for i in range(100)]},
    ],
    ids=["references", "length", "items", "enum", "anyOf"],
)
def test_schemas_that_only_look_large_are_followed(grammars: Grammars, value: object) -> None:
    assert allowed(grammars.guide(schema(value)))


def test_a_walk_that_outgrows_the_limits_is_an_error_of_the_request(grammars: Grammars) -> None:
    guide = grammars.guide(Grammar("lark", "start: /(.*a.{300})/"))
    chance = np.random.default_rng(0)
    with pytest.raises(InvalidRequest, match="cannot be followed"):
        for _ in range(10_000_000):
            guide.take(int(chance.choice([ord("a"), ord("b")])))
            guide.masked(np.zeros(VOCAB, np.float32))


def test_a_token_that_is_not_allowed_is_an_error(grammars: Grammars) -> None:
    guide = grammars.guide(regex("ab"))
    with pytest.raises(InvalidRequest):
        guide.take(ord("x"))


def test_a_grammar_that_would_look_ahead_for_ever_comes_to_an_end(grammars: Grammars) -> None:
    guide = grammars.guide(Grammar("lark", '%llguidance {"no_forcing": false}\nstart: "y" A A\nA: /x+/'))
    take(guide, "yxxx")
    assert ord("x") in allowed(guide)


def test_compiled_grammars_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch, grammars: Grammars) -> None:
    monkeypatch.setattr("device_agent.engine.grammars.guide.KEPT_GRAMMARS", 2)
    for source in ("k", "l", "m"):
        grammars.guide(regex(source))
    tried: list[str] = []

    def note(text: str) -> str:
        tried.append(text)
        return ""

    monkeypatch.setattr(grammars._trials, "problem", note)
    for source in ("m", "l", "k"):
        grammars.guide(regex(source))
    assert len(tried) == 1

"""Grammars held against texts, by llguidance itself, for a tokenizer with the control tokens of every family."""

import functools
import random
from collections.abc import Callable

import llguidance
import tokenizers

from device_agent.engine.records import Grammar
from tests.device_agent.bundles import TINY

CONTROLS = ("[TOOL_CALLS]", "[ARGS]", "<|tool_call|>", "<|/tool_call|>", "<|python_tag|>")


@functools.cache
def _tokenizer(*, controls: bool) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer.from_file(str(TINY / "tokenizer.json"))
    if controls:
        made.add_special_tokens(list(CONTROLS))
    return made


@functools.cache
def _words(*, controls: bool) -> llguidance.LLTokenizer:
    return llguidance.LLTokenizer(_tokenizer(controls=controls).to_str(), eos_token=[0])


def token_id(*, controls: bool) -> Callable[[str], int | None]:
    """The lookup of a model that has these control tokens, or none of them."""
    made = _tokenizer(controls=controls)
    special = {token.content: number for number, token in made.get_added_tokens_decoder().items() if token.special}
    return special.get


def accepts(grammar: Grammar, text: str, *, controls: bool = False) -> bool:
    """Whether the whole text is an answer."""
    matcher = _begun(grammar, controls=controls)
    ids = _words(controls=controls).tokenize_str(text, parse_special=True)
    return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())


def may_begin(grammar: Grammar, text: str, *, controls: bool = False) -> bool:
    """Whether an answer may begin so."""
    matcher = _begun(grammar, controls=controls)
    ids = _words(controls=controls).tokenize_str(text, parse_special=True)
    return matcher.try_consume_tokens(ids) == len(ids)


def written_at_random(
    grammar: Grammar, seed: int, *, shown: frozenset[int] = frozenset(), controls: bool = False
) -> list[str]:
    """Some answer's text by tokens, of control tokens only those `shown`: what knows nothing but the grammar writes."""
    chance = random.Random(seed)
    matcher = _begun(grammar, controls=controls)
    tokenizer = _tokenizer(controls=controls)
    pieces: list[str] = []
    while not matcher.is_stopped():
        mask = matcher.compute_bitmask()
        allowed = [one for one in range(_words(controls=controls).vocab_size) if mask[one >> 3] >> (one & 7) & 1]
        chosen = chance.choice(allowed)
        assert matcher.consume_token(chosen)
        pieces.append(str(tokenizer.decode([chosen], skip_special_tokens=chosen not in shown)))
    return pieces


def _begun(grammar: Grammar, *, controls: bool) -> llguidance.LLMatcher:
    kinds = {
        "lark": llguidance.LLMatcher.grammar_from_lark,
        "regex": llguidance.LLMatcher.grammar_from_regex,
        "json_schema": llguidance.LLMatcher.grammar_from_json_schema,
    }
    matcher = llguidance.LLMatcher(_words(controls=controls), kinds[grammar.kind](grammar.source), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher

"""Answers of a given form: which tokens may come next at each step, so that no other answer can be written.

The grammars are llguidance's (https://github.com/guidance-ai/llguidance): it reads the model's tokenizer.json, and
walks a grammar's parser over the tree of all tokens. The tree is made when the first grammar is asked for (0.35 s for
49,152 tokens), so that a model without such requests pays nothing.
"""

import collections
import itertools
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tokenizers

from device_agent.engine.grammars.trial import TRIAL_S, Trials
from device_agent.engine.records import Grammar
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import Ids
from edgekit.errors import InvalidRequest

if TYPE_CHECKING:
    import llguidance

log = logging.getLogger(__name__)

MAX_SOURCE_BYTES = 64 << 10
"""Of a grammar's text. OpenAI's schemas may have 15,000 characters of names, and 5,000 properties."""
MAX_LEXER_STATES = 30_000
"""Each takes one or two kilobytes; llguidance's own limit is 250,000."""
KEPT_GRAMMARS = 16
"""Compiled ones: the choices of a request share theirs, and a chat's next turn has the same tools."""
_MAX_PROBLEM_CHARS = 400

# One line, with a space after each comma and colon: as Python's json.dumps writes, and so as most JSON that models were
# trained on. Without a choice of white space a model at temperature 1 cannot lose itself in it, and more is forced.
_JSON_STYLE: "llguidance._lib.JsonCompileOptions" = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}

# Where a text must come next, llguidance allows the tokens alone that the tokenizer would write it in. That looking
# ahead does not end where a terminal may follow itself (`start: A A`, `A: /x+/`), and takes the text of a special token
# for the token. So it is not done in Lark grammars, nor where such a text seems to be meant.
_NO_FORCING = '%llguidance {"no_forcing": true}'

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Meant:
    """Which of the model's `vocab` ids a grammar can mean.

    Those that the tokenizer knows (ids below `known`, which may be fewer or more), but for `never`; and `ends` only
    where it may end.
    """

    vocab: int
    known: int
    never: Ids
    ends: Ids


class Guide:
    """A grammar and how far one answer has come in it. Any thread, but one at a time.

    Errors name `param`, by which the grammar came.
    """

    def __init__(self, matcher: "llguidance.LLMatcher", meant: Meant, *, param: str) -> None:
        self._matcher = matcher
        self._meant = meant
        self._param = param
        self._words = np.zeros((1, (meant.known + 31) // 32), np.int32)  # llguidance's mask, a bit for each id
        self._allowed = np.zeros(meant.vocab, bool)

    def masked(self, logits: Floats) -> Floats:
        """`logits` [vocab] in which tokens that the grammar does not allow now are minus infinity; a copy.

        Tokens that end an answer are allowed where the grammar may end. Raises InvalidRequest if the grammar allows
        nothing, or takes more than its share of time.
        """
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._words)
        self._check()
        allowed, meant = self._allowed, self._meant
        both = min(meant.vocab, meant.known)
        allowed[:both] = np.unpackbits(self._words.view(np.uint8)[0], bitorder="little", count=both)
        allowed[meant.never] = False
        if allowed[meant.ends].any() and not self._matcher.is_accepting():
            allowed[meant.ends] = False
        if not allowed.any():
            raise InvalidRequest("The grammar allows no token here, and does not allow to end.", param=self._param)
        return np.where(allowed, logits, np.float32(-np.inf))

    def take(self, token_id: int) -> None:
        """Go on after this token, which must be allowed. Raises InvalidRequest as `masked` does."""
        self._matcher.consume_token(token_id)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether nothing but an end may follow."""
        return bool(self._matcher.is_stopped())

    def forced(self) -> Sequence[int]:
        """Ids of the text that must come next, as the tokenizer would write it; none if there is a choice."""
        return [int(token_id) for token_id in self._matcher.compute_ff_tokens()]

    def allowed(self, ids: Sequence[int]) -> int:
        """How many of these tokens, one after the other, the grammar allows now."""
        known = list(itertools.takewhile(lambda token_id: token_id < self._meant.known, ids))
        return int(self._matcher.validate_tokens(known))

    def copy(self) -> "Guide":
        """Another answer's, that has come as far."""
        return Guide(self._matcher.deep_copy(), self._meant, param=self._param)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refusal(self._matcher.get_error(), self._param)


class Grammars:
    """Makes guides for one model's tokens. Any thread may call.

    `eos` are the ids that end an answer, `vocab` is how many logits there are. A grammar is tried for `trial_s` seconds
    at most.
    """

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, *, vocab: int, eos: Sequence[int], trial_s: float = TRIAL_S
    ) -> None:
        added = tokenizer.get_added_tokens_decoder()
        special = {token_id: token.content for token_id, token in added.items() if token_id < vocab}
        self._source = tokenizer
        self._names = tuple(special.values())
        self._special = np.array([token_id for token_id in special if token_id not in eos], np.int64)
        self._ends = np.array([token_id for token_id in eos if token_id < vocab], np.int64)
        self._vocab = vocab
        self._eos = tuple(eos)
        self._trials = Trials(vocab=vocab, eos=self._eos, special=special, trial_s=trial_s)
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._kept: collections.OrderedDict[Grammar, Guide] = collections.OrderedDict()
        self._lock = threading.Lock()

    def guide(self, grammar: Grammar) -> Guide:
        """A guide at the beginning of an answer.

        Raises InvalidRequest for what is no grammar or too large a one, Overloaded while many others' are tried, and
        ServerError if they cannot be.
        """
        param = "response_format" if grammar.kind == "json_schema" else "grammar"
        _check_size(grammar, param)
        with self._lock:
            found = self._kept.get(grammar)
            if found is not None:
                self._kept.move_to_end(grammar)
                return found.copy()
        text = self._text_of(grammar, param)
        if problem := self._trials.problem(text):
            raise _refusal(problem, param)
        with self._lock:
            tokenizer = self._tokenizer = self._tokenizer or self._made_tokenizer(param)
        made = self._compiled(text, tokenizer, grammar, param=param)
        with self._lock:
            self._kept[grammar] = made
            while len(self._kept) > KEPT_GRAMMARS:
                self._kept.popitem(last=False)
            return made.copy()

    def close(self) -> None:
        """End the process that tries grammars, if it runs."""
        self._trials.close()

    def _made_tokenizer(self, param: str) -> "llguidance.LLTokenizer":
        import llguidance

        try:
            return llguidance.LLTokenizer(self._source.to_str(), eos_token=list(self._eos))
        except ValueError as error:
            log.warning("llguidance cannot use this tokenizer: %s", error)
            raise InvalidRequest(f"This model's tokenizer knows no grammars: {error}", param=param) from error

    def _text_of(self, grammar: Grammar, param: str) -> str:
        """The grammar in llguidance's notation. Raises InvalidRequest."""
        from llguidance import LLMatcher

        if grammar.kind == "lark":
            return f"{grammar.source}\n{_NO_FORCING}\n"
        try:
            if grammar.kind == "regex":
                return self._careful(str(LLMatcher.grammar_from_regex(grammar.source)))
            return self._careful(str(LLMatcher.grammar_from_json_schema(grammar.source, defaults=_JSON_STYLE)))
        except (ValueError, RecursionError) as error:
            raise _refusal(str(error), param) from error

    def _careful(self, text: str) -> str:
        """The same grammar, written so that the text of a special token stays text, if it may have such."""
        bare = text.replace("\\", "")
        if not any(name in bare for name in self._names):
            return text
        (grammar,) = json.loads(text)["grammars"]
        rules = grammar["lark_grammar"] or f"start: %json {json.dumps(grammar['json_schema'])}"
        return f"{rules}\n{_NO_FORCING}\n"

    def _compiled(self, text: str, tokenizer: "llguidance.LLTokenizer", grammar: Grammar, *, param: str) -> Guide:
        import llguidance

        limits = llguidance.LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
        matcher = llguidance.LLMatcher(tokenizer, text, log_level=0, limits=limits)
        if matcher.is_error():
            raise _refusal(matcher.get_error(), param)
        never, ends = (_NONE, _NONE) if grammar.kind == "lark" else (self._special, self._ends)
        guide = Guide(matcher, Meant(self._vocab, tokenizer.vocab_size, never, ends), param=param)
        guide.masked(np.zeros(self._vocab, np.float32))  # what cannot even begin is refused now
        return guide


def _check_size(grammar: Grammar, param: str) -> None:
    try:
        size = len(grammar.source.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The grammar is not Unicode: {error.reason} at {error.start}.", param=param) from error
    if size > MAX_SOURCE_BYTES:
        raise InvalidRequest(
            f"The grammar has {size:,} bytes, and {MAX_SOURCE_BYTES:,} are the most that are taken.", param=param
        )


def _refusal(problem: str, param: str) -> InvalidRequest:
    name = "JSON schema" if param == "response_format" else "grammar"
    if "NoExtension" in problem:  # llguidance's name for a dead end
        problem = "it allows neither another token nor an end"
    return InvalidRequest(f"This {name} cannot be followed: {problem.strip()[:_MAX_PROBLEM_CHARS]}", param=param)

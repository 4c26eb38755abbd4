"""A program of its own that tries grammars: it may hang, crash or run out of memory, and nobody else does.

`grammar_trial` starts it and kills it. The first line that it reads is a JSON object with `vocab` (a number), `eos`
(ids) and `special` (names by id); every other line is a JSON string, a grammar in llguidance's notation. For each of
them it writes a line, the JSON string of what is wrong with it, empty if nothing is; and one for the first line. It
ends when its input does, or when nobody asks for a while.

It imports nothing of this package: a start is half a Python start and half llguidance's.
"""

import json
import random
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import llguidance

IDLE_S = 60
_MEMORY_BYTES = 1 << 30
_STACK_BYTES = 1 << 20
"""Less than any thread of the agent has: a grammar that is nested too deeply for them crashes here."""
_STEPS = 48
"""Of an answer that is tried at random. A parser that comes to no end mostly does so soon."""


class Bytes:
    """The smallest vocabulary: a token for each byte, and special tokens where the model has them."""

    def __init__(self, *, vocab: int, eos: Sequence[int], special: Mapping[str, str]) -> None:
        names = {int(token_id): name.encode() for token_id, name in special.items()}
        free = [token_id for token_id in range(vocab) if token_id not in names and token_id not in eos]
        values = dict(zip(free, range(256), strict=False))
        self.eos_token_id = eos[0]
        self.bos_token_id = None
        self.tokens = [
            bytes([values[token_id]]) if token_id in values else names.get(token_id, b"<unused %d>" % token_id)
            for token_id in range(vocab)
        ]
        self.special_token_ids = [token_id for token_id in range(vocab) if token_id not in values]
        self.ids = {value: token_id for token_id, value in values.items()}
        self.choices = sorted({*values, *eos, *names})

    def __call__(self, text: bytes) -> list[int]:
        """Ids of a text, as llguidance asks for them."""
        return [self.ids[value] for value in text if value in self.ids]


def answer(lines: Iterable[str], out: TextIO) -> None:
    """Try one grammar after the other."""
    import llguidance

    tokenizer: llguidance.LLTokenizer | None = None
    choices: Sequence[int] = ()
    for line in lines:
        _end_when_idle()
        if tokenizer is None:
            known = json.loads(line)
            vocabulary = Bytes(**known)
            wrapped = llguidance.TokenizerWrapper(vocabulary)
            tokenizer = llguidance.LLTokenizer(wrapped, eos_token=known["eos"], slices=[])
            choices = vocabulary.choices
            problem = ""
        else:
            problem = _problem(json.loads(line), tokenizer, choices)
        out.write(json.dumps(problem) + "\n")
        out.flush()


def _problem(grammar: str, tokenizer: "llguidance.LLTokenizer", choices: Sequence[int]) -> str:
    from llguidance import LLMatcher, LLParserLimits

    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))
    chance = random.Random(0)  # noqa: S311 - any way through the grammar will do
    for _ in range(_STEPS):
        if matcher.is_error():
            return str(matcher.get_error())
        if matcher.is_stopped():
            return ""
        mask = matcher.compute_bitmask()
        allowed = [token_id for token_id in choices if mask[token_id >> 3] >> (token_id & 7) & 1]
        if not allowed:  # or only tokens that are neither bytes nor special
            return "" if any(mask) else str(matcher.get_error())
        if not matcher.consume_token(chance.choice(allowed)):
            return str(matcher.get_error())
    return ""


def _end_when_idle() -> None:
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(IDLE_S)


def _bound_memory() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


if __name__ == "__main__":
    _bound_memory()
    threading.stack_size(_STACK_BYTES)
    worker = threading.Thread(target=answer, args=(sys.stdin, sys.stdout), daemon=True)
    worker.start()
    worker.join()

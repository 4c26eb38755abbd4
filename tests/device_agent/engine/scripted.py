"""A decoder that follows a script, and a tokenizer whose ids 0 to 255 are bytes: a model without a model."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.pre_tokenizers

from device_agent.engine.sampling import Logits

END = 256
VOCAB = 260


def byte_tokenizer(extra: Sequence[bytes] = ()) -> tokenizers.Tokenizer:
    """Byte-level BPE without merges; id `END` is special, and `extra` byte strings are the ids from 257."""
    letters = _byte_letters()
    vocab = {letter: byte for byte, letter in enumerate(letters)}
    vocab["<|end|>"] = END
    for token in extra:
        vocab["".join(letters[byte] for byte in token)] = len(vocab)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: itself where printable, else one from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


class ScriptedDecoder:
    """Implements generate.StepDecoder: after the prompt, the tokens of `script` have the largest logit in turn.

    A script may hold an exception, which is then raised by the step, or a callable, which is called.
    """

    def __init__(self, *script: int | Exception | Callable[[], int], context_tokens: int = 1000) -> None:
        self.script = list(script)
        self.context_tokens = context_tokens
        self.length = 0
        self.steps: list[tuple[int, ...]] = []
        self.before_step: Callable[[], None] = lambda: None
        self._next = 0
        self._prompt_tokens_left = 0

    def expect_prompt(self, tokens: int) -> None:
        """Only the step that ends the prompt moves along the script."""
        self._prompt_tokens_left = tokens

    def truncate(self, length: int) -> None:
        self.length = length

    def step(self, ids: Sequence[int]) -> Logits:
        self.before_step()
        self.steps.append(tuple(ids))
        self.length += len(ids)
        assert self.length <= self.context_tokens, "the context is overrun"
        self._prompt_tokens_left -= len(ids)
        if self._prompt_tokens_left > 0:
            return np.full(VOCAB, np.nan, np.float32)  # whoever reads these fails
        item = self.script[self._next]
        self._next += 1
        if isinstance(item, Exception):
            raise item
        logits = np.zeros(VOCAB, np.float32)
        logits[item if isinstance(item, int) else item()] = 1
        return logits


def decoder_saying(text: str, *, context_tokens: int = 1000) -> ScriptedDecoder:
    """A decoder whose answer is `text` and the end token."""
    return ScriptedDecoder(*text.encode(), END, context_tokens=context_tokens)


def spelled(ids: Iterable[int]) -> str:
    """The text of byte ids."""
    return bytes(ids).decode()

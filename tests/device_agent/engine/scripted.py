"""A model without a model: rows whose next token a function of their text decides, and a tokenizer of bytes."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.pre_tokenizers

from device_agent.engine.rows import Floats, Lora, Snapshot
from device_agent.engine.scheduling.sequence import Language

END = 256
VOCAB = 260
Says = Callable[[tuple[int, ...]], Floats]
"""Logits [vocab] after a text. It may raise."""


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


LANGUAGE = Language(byte_tokenizer(), frozenset({END}), VOCAB)


class Clock:
    """Time as the test says it is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeRows:
    """Implements rows.Rows over plain lists of ids; what a row holds is what `says` is asked about.

    Logits that were returned are spoilt by the next call, as the real ones are overwritten. `steps` are the calls:
    ("read", {row: ids}) or ("decode", {row: (id,)}). `cost` is added to the clock for each: of the number of tokens in
    a read, or of rows in a decode.
    """

    def __init__(
        self,
        says: Says,
        *,
        context_tokens: int = 1000,
        most_rows: int = 4,
        clock: Clock | None = None,
        cost: Callable[[int], float] = float,
    ) -> None:
        self.says = says
        self.context_tokens = context_tokens
        self.most_rows = most_rows
        self.bytes_per_token = 8
        self.clock = clock or Clock()
        self.cost = cost
        self.texts: list[list[int]] = [[] for _ in range(most_rows)]
        self.loras: list[Lora | None] = [None] * most_rows
        self.steps: list[tuple[str, dict[int, tuple[int, ...]]]] = []
        self.before_step: Callable[[], None] = lambda: None
        self.shrunk = 0
        self.copies = 0
        self._given: list[Floats] = []

    @property
    def fed(self) -> list[tuple[int, ...]]:
        """What each step appended, for tests with one request at a time."""
        return [ids for _, step in self.steps for ids in step.values()]

    def length(self, row: int) -> int:
        return len(self.texts[row])

    def adapt(self, row: int, lora: Lora | None) -> None:
        self.loras[row] = lora

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        assert 0 <= keep <= len(ids) > 0
        self._begin("read", {row: tuple(ids)}, self.cost(len(ids)))
        text = [*self.texts[row], *ids]
        assert len(text) <= self.context_tokens, "the context is overrun"
        lines = [self.says(tuple(text[: len(text) - after])) for after in reversed(range(keep))]
        self.texts[row] = text
        return self._give(lines)

    def decode(self, ids: Mapping[int, int]) -> Floats:
        assert ids
        self._begin("decode", {row: (token,) for row, token in ids.items()}, self.cost(len(ids)))
        texts = {row: [*self.texts[row], token] for row, token in ids.items()}
        assert all(len(text) <= self.context_tokens for text in texts.values()), "the context is overrun"
        lines = [self.says(tuple(text)) for text in texts.values()]
        for row, text in texts.items():
            self.texts[row] = text
        return self._give(lines)

    def truncate(self, row: int, length: int) -> None:
        assert 0 <= length <= len(self.texts[row])
        del self.texts[row][length:]

    def snapshot(self, row: int, length: int) -> Snapshot:
        assert 0 <= length <= len(self.texts[row])
        self.copies += 1
        array = np.array(self.texts[row][:length], np.int64).reshape(1, length, 1)
        return Snapshot(length, (array,))

    def restore(self, row: int, snapshot: Snapshot) -> None:
        (array,) = snapshot.arrays
        if array.shape != (1, snapshot.length, 1):
            raise ValueError("a snapshot of another model")
        self.texts[row] = [int(token) for token in array[0, :, 0]]

    def shrink(self) -> None:
        self.shrunk += 1

    def _begin(self, name: str, step: dict[int, tuple[int, ...]], took_s: float) -> None:
        self.before_step()
        for given in self._given:
            given[:] = np.nan
        self.steps.append((name, step))
        self.clock.now += took_s

    def _give(self, lines: Sequence[Floats]) -> Floats:
        logits = np.array(lines, np.float32).reshape(len(lines), VOCAB)
        self._given = [logits]
        return logits


def one_hot(token_id: int) -> Floats:
    """Logits that leave no choice but this."""
    logits = np.zeros(VOCAB, np.float32)
    logits[token_id] = 1
    return logits


def scripted(*script: int | Exception, prompt_tokens: int = 1) -> Says:
    """After a prompt of so many tokens, these follow, whatever was read; an exception is raised."""

    def says(text: tuple[int, ...]) -> Floats:
        item = script[len(text) - prompt_tokens]
        if isinstance(item, Exception):
            raise item
        return one_hot(item)

    return says


def saying(text: str, *, prompt_tokens: int = 1) -> Says:
    """The answer is `text` and the end token."""
    return scripted(*text.encode(), END, prompt_tokens=prompt_tokens)


def hashed(text: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Logits that depend on every token of the text and on their order: a wrong one anywhere shows at once."""
    seed = zlib.crc32(np.asarray(text, np.int64).tobytes())
    logits = np.random.default_rng(seed).normal(scale=2, size=VOCAB).astype(np.float32)
    logits[END] = 4.5 if seed % 29 == 0 else -10
    return logits


def spelled(ids: Iterable[int]) -> str:
    """The text of byte ids."""
    return bytes(ids).decode()

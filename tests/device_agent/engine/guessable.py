"""Small models without a model, whose texts can be guessed, and what their steps cost."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from device_agent.engine.drafting.verify import verified
from device_agent.engine.records import Sampling
from device_agent.engine.rows import Floats, Lora, Snapshot
from device_agent.engine.sampling import History, make_sampler

VOCAB = 5


def flat(_tokens: int) -> float:
    """A model for which several tokens cost as much as one."""
    return 1.0


def linear(tokens: int) -> float:
    """A model for which guesses never pay."""
    return float(tokens)


def affine(tokens: int) -> float:
    """About what two cores measured on a model of 135 M parameters, milliseconds."""
    return 5.0 + 2.5 * tokens


def logits_after(ids: Sequence[int]) -> Floats:
    """A model: its logits depend on the last two tokens."""
    seed = sum(token * VOCAB**at for at, token in enumerate(ids[-2:]))
    return np.random.default_rng(seed).normal(0, 1.5, VOCAB).astype(np.float32)


class FakeRows:
    """Implements rows.Rows for one row: says what `model` says after all that the row holds."""

    most_rows = 1
    bytes_per_token = 1

    def __init__(self, model: Callable[[Sequence[int]], Floats] = logits_after, *, context_tokens: int = 1000) -> None:
        self.context_tokens = context_tokens
        self.held: list[int] = []
        self.calls: list[tuple[int, ...]] = []
        self.error: Exception | None = None
        self._model = model

    def length(self, row: int) -> int:
        return len(self.held)

    def adapt(self, row: int, lora: Lora | None) -> None:
        assert lora is None

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        if self.error:
            raise self.error
        assert len(ids) >= 1
        assert len(self.held) + len(ids) <= self.context_tokens, "the context is overrun"
        self.calls.append(tuple(ids))
        self.held += ids
        ends = range(len(self.held) - keep + 1, len(self.held) + 1)
        return np.stack([self._model(self.held[:end]) for end in ends])

    def decode(self, ids: Mapping[int, int]) -> Floats:
        assert list(ids) == [0]
        return self.read(0, [ids[0]])

    def truncate(self, row: int, length: int) -> None:
        assert 0 <= length <= len(self.held)
        del self.held[length:]

    def snapshot(self, row: int, length: int) -> Snapshot:
        raise NotImplementedError

    def restore(self, row: int, snapshot: Snapshot) -> None:
        raise NotImplementedError

    def shrink(self) -> None:
        raise NotImplementedError


def sharp(ids: Sequence[int]) -> Floats:
    """A model that counts in circles of seven."""
    logits = np.zeros(10, np.float32)
    logits[(ids[-1] + 1) % 7] = 9
    return logits


def never(_token: int) -> bool:
    return False


def decoded(
    sampling: Sampling, prompt: Sequence[int], count: int, *, guess: Callable[[Sequence[int]], list[int]]
) -> list[int]:
    """`count` tokens after `prompt`, with steps of whatever is guessed."""
    sampler, history, ids = make_sampler(sampling, vocab=VOCAB), History(prompt), list(prompt)
    while len(ids) < len(prompt) + count:
        drafts = guess(ids)[: len(prompt) + count - len(ids) - 1]
        after = [*ids, *drafts]
        logits = np.stack([logits_after(after[: len(ids) + at]) for at in range(len(drafts) + 1)])
        ids += verified(logits, drafts, sampler, history, stop=never)
    return ids[len(prompt) :]

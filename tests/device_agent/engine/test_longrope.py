"""What is cached belongs to one kind of text, short or long: crossing the limit reads it again."""

from collections.abc import Sequence

import numpy as np
import pytest

from device_agent.engine.generate import CHUNK_TOKENS
from device_agent.engine.longrope import LongropeDecoder
from device_agent.engine.sampling import Logits

LIMIT = 2 * CHUNK_TOKENS + 3
IDS = list(range(3 * CHUNK_TOKENS))


class Recorded:
    """A decoder whose cache is the list of ids, each with whether the text was said to be long when it was read."""

    context_tokens = len(IDS)

    def __init__(self) -> None:
        self.cache: list[tuple[int, bool]] = []
        self.largest = 0
        self.fails = False

    @property
    def length(self) -> int:
        return len(self.cache)

    def truncate(self, length: int) -> None:
        del self.cache[length:]

    def step(self, ids: Sequence[int], *, width: int = 0) -> Logits:
        if self.fails:
            raise ValueError("no")
        self.largest = max(self.largest, len(ids))
        is_long = max(len(self.cache) + len(ids), width) > LIMIT
        self.cache += [(token, is_long) for token in ids]
        return np.array([len(self.cache)], np.float32)


@pytest.fixture
def inner() -> Recorded:
    return Recorded()


@pytest.fixture
def decoder(inner: Recorded) -> LongropeDecoder:
    return LongropeDecoder(inner, LIMIT)


def read(decoder: LongropeDecoder, start: int, stop: int, size: int = CHUNK_TOKENS) -> float:
    return [float(decoder.step(IDS[at : min(at + size, stop)])[0]) for at in range(start, stop, size)][-1]


def test_up_to_the_limit_nothing_is_read_twice(decoder: LongropeDecoder, inner: Recorded) -> None:
    assert read(decoder, 0, LIMIT) == LIMIT
    assert inner.cache == [(token, False) for token in IDS[:LIMIT]]
    assert decoder.length == LIMIT
    assert decoder.context_tokens == len(IDS)


def test_one_token_more_and_all_are_read_as_a_long_text_in_pieces(decoder: LongropeDecoder, inner: Recorded) -> None:
    read(decoder, 0, LIMIT)
    assert read(decoder, LIMIT, LIMIT + 1) == LIMIT + 1
    assert inner.cache == [(token, True) for token in IDS[: LIMIT + 1]]
    assert inner.largest <= CHUNK_TOKENS


def test_a_long_text_goes_on_without_reading_again(decoder: LongropeDecoder, inner: Recorded) -> None:
    read(decoder, 0, LIMIT + 1)
    inner.cache[0] = (-1, True)
    read(decoder, LIMIT + 1, LIMIT + 9, 1)
    assert inner.cache[0] == (-1, True)
    assert inner.cache[1:] == [(token, True) for token in IDS[1 : LIMIT + 9]]


def test_a_text_that_became_short_again_is_read_as_such(decoder: LongropeDecoder, inner: Recorded) -> None:
    read(decoder, 0, LIMIT + 1)
    decoder.truncate(5)
    assert read(decoder, 5, 7) == 7
    assert inner.cache == [(token, False) for token in IDS[:7]]


def test_a_new_text_starts_from_nothing(decoder: LongropeDecoder, inner: Recorded) -> None:
    read(decoder, 0, LIMIT + 1)
    decoder.truncate(0)
    read(decoder, 10, 20)
    assert inner.cache == [(token, False) for token in IDS[10:20]]


def test_after_a_failure_only_what_is_cached_counts(decoder: LongropeDecoder, inner: Recorded) -> None:
    read(decoder, 0, LIMIT)
    inner.fails = True
    with pytest.raises(ValueError, match="no"):
        decoder.step(IDS[:1])
    inner.fails = False
    assert decoder.length == 0
    read(decoder, 3, 8)
    assert inner.cache == [(token, False) for token in IDS[3:8]]

"""From logits to the next token: a sampler is a function, made once per request from its parameters.

A token is chosen in this order; whatever a request leaves at its default costs nothing.

1. `logit_bias` is added (OpenAI API reference).
2. `repetition_penalty` over every token of prompt and answer: positive logits are divided by it, others
   multiplied (Keskar et al. 2019, CTRL, section 4.1).
3. `presence_penalty` once, and `frequency_penalty` as often as the token occurs, are subtracted for tokens of
   the answer alone (OpenAI API reference).
4. `temperature` divides; 0 takes the largest logit, the lowest id among equals, and ends here.
5. `top_k` keeps the k largest, the lowest ids among equals (Fan et al. 2018).
6. `top_p` keeps the smallest set of likeliest tokens whose probabilities reach it (Holtzman et al. 2020).
7. `min_p` keeps tokens at least that probable relative to the likeliest one (Nguyen et al. 2024).
8. One draw from what is left, by PCG64: a seed gives the same tokens for the same logits.

The vocabulary is never sorted. Bounds that provably lose no survivor cut it down first, in passes that numpy
vectorises, so that exactness costs a fraction of a millisecond at 150,000 tokens.
"""

import math
from collections.abc import Iterable
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from device_agent.engine.records import Sampling
from edgekit.errors import InvalidRequest, ServerError

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

RANGES = {
    "temperature": (0.0, 100.0),
    "top_k": (0, math.inf),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "frequency_penalty": (-100.0, 100.0),
}
"""What a sampler can compute with, both ends allowed. The HTTP API's own ranges are narrower."""

MAX_BIAS = 100.0
"""OpenAI's range of `logit_bias`: enough to force or to ban a token."""

_GROUPS = 1024
"""Maxima that bound the k-th largest logit: enough of them that hardly more than k logits pass the bound."""
_BLOCK = 512


class History:
    """The tokens that penalties look at, counted as they come; no work depends on the vocabulary's size."""

    def __init__(self, prompt: Iterable[int]) -> None:
        self._seen = set(prompt)
        self._generated: dict[int, int] = {}

    def add(self, token_id: int) -> None:
        """Count one token of the answer."""
        self._seen.add(token_id)
        self._generated[token_id] = self._generated.get(token_id, 0) + 1

    def seen(self) -> Ids:
        """Distinct ids of prompt and answer, in no particular order."""
        return np.fromiter(self._seen, np.int64, len(self._seen))

    def generated(self) -> tuple[Ids, Logits]:
        """Distinct ids of the answer, and how often each occurs in it."""
        size = len(self._generated)
        ids = np.fromiter(self._generated.keys(), np.int64, size)
        return ids, np.fromiter(self._generated.values(), np.float32, size)


class Sampler(Protocol):
    """Chooses a token."""

    def __call__(self, logits: Logits, history: History) -> int:
        """Id of the next token for `logits` [vocab], which are left unchanged.

        Raises ServerError if the logits are not numbers: the model or its files are broken.
        """


def make_sampler(sampling: Sampling, *, vocab: int) -> Sampler:
    """The sampler of one request; it keeps the random state between tokens.

    Raises InvalidRequest for a parameter outside of `RANGES`, or a biased id outside of the vocabulary.
    """
    _check(sampling, vocab=vocab)
    adjust = _adjustment(sampling)
    if sampling.temperature == 0:
        if adjust is None:
            return _greedy
        return lambda logits, history: _greedy(adjust(logits, history), history)
    # numpy seeds are unsigned, OpenAI's are signed: the same 64 bits.
    random = np.random.Generator(np.random.PCG64(None if sampling.seed is None else sampling.seed % 2**64))

    def sample(logits: Logits, history: History) -> int:
        ids, weights = distribution(logits if adjust is None else adjust(logits, history), sampling)
        # The inverse of the distribution function; `right` never meets a token of weight 0.
        drawn = _crossing(weights, random.random() * float(weights.sum(dtype=np.float64)), side="right")
        return drawn if ids is None else int(ids[drawn])

    return sample


def distribution(logits: Logits, sampling: Sampling) -> tuple[Ids | None, Logits]:
    """Steps 4 to 7: ids that may be drawn, and their weights (probabilities up to a common factor).

    `logits` [vocab] are already penalised, the temperature is not 0. Ids are None when they are all ids in order.
    Raises ServerError if the logits are not numbers.
    """
    peak = finite(float(logits.max()))
    ids = top_ids(logits, sampling.top_k) if 0 < sampling.top_k < logits.size else None
    kept = logits if ids is None else logits[ids]
    with np.errstate(over="ignore", under="ignore"):  # far below the peak, -inf and 0 are the right answers
        weights = kept - np.float32(peak)
        weights /= np.float32(max(sampling.temperature, 1e-30))
        np.exp(weights, out=weights)  # in place: fresh pages for each array would cost more than the arithmetic
    if sampling.top_p == 1 and sampling.min_p == 0:
        return ids, weights
    # The peak weighs 1, so min_p is itself a bound on weights. For top_p, tokens below (1 - top_p) / size of the
    # sum cannot reach 1 - top_p together, so the others hold the nucleus; halved, to be safe from rounding.
    total = float(weights.sum(dtype=np.float64))
    floor = max(sampling.min_p, 0.5 * (1 - sampling.top_p) / weights.size * total)
    chosen = np.flatnonzero(weights >= floor)
    if sampling.top_p < 1:
        likeliest = np.sort(weights[chosen])[::-1]
        size = _crossing(likeliest, sampling.top_p * total, side="left") + 1
        chosen = chosen[_largest(weights[chosen], size, likeliest[size - 1])]
    return (chosen if ids is None else ids[chosen]), weights[chosen]


def _check(sampling: Sampling, *, vocab: int) -> None:
    for name, (low, high) in RANGES.items():
        value = getattr(sampling, name)
        if not low <= value <= high:  # a NaN is outside, too
            raise InvalidRequest(f"{name} is {value}, and must be from {low} to {high}.", param=name)
    for token_id, bias in sampling.logit_bias.items():
        if not 0 <= token_id < vocab:
            raise InvalidRequest(f"logit_bias names token {token_id}; ids end at {vocab - 1}.", param="logit_bias")
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            raise InvalidRequest(
                f"logit_bias of token {token_id} is {bias}, and must be from {-MAX_BIAS} to {MAX_BIAS}.",
                param="logit_bias",
            )


class _Adjust(Protocol):
    def __call__(self, logits: Logits, history: History) -> Logits: ...


def _adjustment(sampling: Sampling) -> _Adjust | None:
    """Steps 1 to 3 on a copy of the logits, or None if there is nothing to do."""
    biased = np.fromiter(sampling.logit_bias.keys(), np.int64, len(sampling.logit_bias))
    bias = np.fromiter(sampling.logit_bias.values(), np.float32, len(sampling.logit_bias))
    repetition = np.float32(sampling.repetition_penalty)
    presence, frequency = np.float32(sampling.presence_penalty), np.float32(sampling.frequency_penalty)
    if not biased.size and repetition == 1 and presence == 0 and frequency == 0:
        return None

    def adjust(logits: Logits, history: History) -> Logits:
        adjusted = logits.copy()
        adjusted[biased] += bias
        if repetition != 1:
            seen = history.seen()
            values = adjusted[seen]
            adjusted[seen] = np.where(values > 0, values / repetition, values * repetition)
        if presence or frequency:
            ids, counts = history.generated()
            adjusted[ids] -= presence + frequency * counts
        return adjusted

    return adjust


def _greedy(logits: Logits, history: History) -> int:  # noqa: ARG001  # the signature of every sampler
    best = int(logits.argmax())  # the first of equals; a NaN counts as the largest, so this sees it
    finite(float(logits[best]))
    return best


def finite(peak: float) -> float:
    """The largest logit itself. Raises ServerError if it is not a number: the model or its files are broken."""
    if not math.isfinite(peak):
        raise ServerError(f"the model's largest logit is {peak}, so its computation is broken")
    return peak


def top_ids(logits: Logits, k: int) -> Ids:
    """Ids of the `k` largest logits, the lowest ids among equals, in ascending order; 0 < k <= size.

    The k-th largest of any group maxima is at most the k-th largest of all: a bound from one cheap pass.
    """
    groups = max(_GROUPS, 8 * k)
    candidates: Ids | None = None
    if logits.size >= 4 * groups:
        maxima = logits[: logits.size // groups * groups].reshape(-1, groups).max(axis=0)
        candidates = np.flatnonzero(logits >= _kth_largest(maxima, k))
    values = logits if candidates is None else logits[candidates]
    chosen = _largest(values, k, _kth_largest(values, k))
    return chosen if candidates is None else candidates[chosen]


def _kth_largest(values: Logits, k: int) -> np.float32:
    return np.float32(np.partition(values, values.size - k)[values.size - k])


def _largest(values: Logits, count: int, bound: np.float32) -> Ids:
    """Indices, ascending, of the `count` largest values, given the smallest of them; the first among equals."""
    above, equal = np.flatnonzero(values > bound), np.flatnonzero(values == bound)
    return np.sort(np.concatenate((above, equal[: count - above.size])))


def _crossing(weights: Logits, target: float, *, side: Literal["left", "right"]) -> int:
    """First index whose running sum reaches `target` (left) or exceeds it (right); the last weight above 0 if none.

    Sums blocks first and walks through one of them: running sums are the slow part in numpy.
    """
    starts = np.arange(0, weights.size, _BLOCK)
    sums = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    block = _first(sums, target, side=side)
    start = int(starts[block])
    before = float(sums[block - 1]) if block else 0.0
    return start + _first(np.cumsum(weights[start : start + _BLOCK], dtype=np.float64), target - before, side=side)


def _first(sums: npt.NDArray[np.float64], target: float, *, side: Literal["left", "right"]) -> int:
    # Where rounding puts the target at or past the end, the index that completed the sum is meant.
    return int(min(np.searchsorted(sums, target, side=side), np.searchsorted(sums, sums[-1])))

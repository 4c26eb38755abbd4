"""How far one model's next-token distributions are from another's: Kullback-Leibler divergence, in nats."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def log_softmax(logits: Floats) -> Doubles:
    """Natural logarithms of the probabilities, over the last axis, in double precision."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def divergence(source: Floats, found: Floats) -> tuple[float, float]:
    """Mean KL(source || found) of logits [tokens, vocab], and the share of tokens with the same most likely one."""
    kl, same = 0.0, 0
    for one, other in zip(source, found, strict=True):  # token by token: double precision of all would double memory
        p, q = log_softmax(one), log_softmax(other)
        kl += float((np.exp(p) * (p - q)).sum())
        same += int(one.argmax() == other.argmax())
    return kl / len(source), same / len(source)


class Divergence:
    """Mean KL(reference || other); the reference's log probabilities [tokens, vocab] stay in memory.

    In single precision: this is asked hundreds of times for the same reference, and a mean needs no more.
    """

    def __init__(self, reference: Sequence[Floats]) -> None:
        self._logs = [_single(logits) for logits in reference]
        self._shares = [np.exp(logs) for logs in self._logs]

    def of(self, others: Iterable[Floats]) -> float:
        """The mean over all tokens of all rows."""
        total, tokens = 0.0, 0
        for logs, shares, other in zip(self._logs, self._shares, others, strict=True):
            total += float(np.einsum("tv,tv->", shares, logs - _single(other), dtype=np.float64))
            tokens += len(logs)
        return total / tokens


def _single(logits: Floats) -> Floats:
    shifted = logits - logits.max(-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return result

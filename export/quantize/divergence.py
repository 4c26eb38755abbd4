"""KL divergence between next-token distributions, row by row, against one remembered reference."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def log_softmax(logits: Floats) -> Floats:
    """Log probabilities over the last axis, in place of the logits' scale; single precision is enough for a mean."""
    shifted = logits - logits.max(-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return result


class Divergence:
    """Mean KL(reference || other) in nats; the reference's log probabilities [tokens, vocab] stay in memory."""

    def __init__(self, reference: Sequence[Floats]) -> None:
        self._logs = [log_softmax(logits) for logits in reference]
        self._shares = [np.exp(logs) for logs in self._logs]

    def of(self, others: Iterable[Floats]) -> float:
        """The mean over all tokens of all rows."""
        total, tokens = 0.0, 0
        for logs, shares, other in zip(self._logs, self._shares, others, strict=True):
            total += float(np.einsum("tv,tv->", shares, logs - log_softmax(other), dtype=np.float64))
            tokens += len(logs)
        return total / tokens

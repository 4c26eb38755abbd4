"""How probable tokens were, as the model itself says: natural logarithms, before any sampling filter or grammar."""

import math
from collections.abc import Sequence

import numpy as np

from device_agent.engine.records import TokenLogprob
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import finite, top_ids


def logprob_of(logits: Floats, token_id: int, *, top: int) -> TokenLogprob:
    """Log-softmax of raw `logits` [vocab] at `token_id`, and at the `top` likeliest ids (the lower of equals first).

    Raises ServerError if the logits are not numbers.
    """
    peak = finite(float(logits.max()))
    with np.errstate(under="ignore"):
        total = math.log(float(np.exp(logits - np.float32(peak)).sum(dtype=np.float64)))
    ids = top_ids(logits, min(top, logits.size)) if top else np.empty(0, np.int64)
    likeliest = sorted(ids.tolist(), key=lambda each: (-float(logits[each]), each))
    return TokenLogprob(
        token_id,
        float(logits[token_id]) - peak - total,
        tuple((each, float(logits[each]) - peak - total) for each in likeliest),
    )


class PromptLogprobs:
    """Those of a prompt, gathered while it is read. `top` likeliest ids come with each."""

    def __init__(self, prompt: Sequence[int], *, top: int) -> None:
        self._prompt = prompt
        self._top = top
        self._found = [TokenLogprob(prompt[0], None)]

    def note(self, start: int, logits: Floats) -> None:
        """Learn from `logits` [positions, vocab] of what follows the prompt's token `start` and those after it.

        What was known of later positions is replaced: a part of the prompt may have to be read again.
        """
        del self._found[start + 1 :]
        for token_id, line in zip(self._prompt[start + 1 :], logits, strict=False):  # nothing follows the last one
            self._found.append(logprob_of(line, token_id, top=self._top))

    def all(self) -> tuple[TokenLogprob, ...]:
        """One for each token that was reached; the first has none."""
        return tuple(self._found)

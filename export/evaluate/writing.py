"""What a reader writes greedily, and how likely it finds given texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from export.divergence import log_softmax
from export.evaluate.prompts import Prompts
from export.evaluate.reader import Reader, common_prefix


@dataclass(frozen=True)
class Likelihood:
    """Of one text behind a prompt: log-probabilities of its tokens, summed up and their mean."""

    sum: float
    mean: float


def likelihoods(reader: Reader, prompts: Prompts, prompt: str, texts: Sequence[str]) -> list[Likelihood]:
    """Of each text as the prompt's continuation."""
    start = prompts.ids(prompt)
    whole = [prompts.ids(prompt + text) for text in texts]
    # A tokenizer may join the end of the prompt with the text: then both count, for every text alike.
    shared = max(1, min(common_prefix(start, ids) for ids in whole))
    found = []
    for ids in whole:
        predicted = np.asarray(ids[shared:])
        log_probabilities = log_softmax(reader.after(ids[:-1], len(predicted)))
        each = log_probabilities[np.arange(len(predicted)), predicted]
        found.append(Likelihood(float(each.sum()), float(each.mean())))
    return found


def write(
    reader: Reader, prompts: Prompts, prompt: str, *, limit: int, ended: Callable[[str], bool], given: str = ""
) -> tuple[str, int]:
    """Greedy text, and its number of tokens, until a token that ends answers, an end that is known, or the limit.

    `given` is how much of the text the prompt has already; the text begins with it.
    """
    ids = prompts.ids(prompt)
    made: list[int] = []
    text = given
    while len(made) < limit and len(ids) + len(made) < reader.context_tokens and not ended(text):
        token = int(reader.after([*ids, *made], 1)[-1].argmax())
        if token in prompts.eos:
            break
        made.append(token)
        text = given + prompts.tokenizer.decode(made, skip_special_tokens=True)
    return text, len(made)

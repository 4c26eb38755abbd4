"""Calibration text that the model writes itself: no data set is needed, and nothing that has a licence.

Rows start from tokens drawn at random, half of them as a user's turn where the model has a chat template, and go
on by sampling from the model's own distribution (Liu et al. 2023, LLM-QAT, section 3.1), all rows side by side.
The model that writes is an INT8 graph of the checkpoint, made for the occasion.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch
from export.rows import Rows
from export.sessions import open_session

Ids = npt.NDArray[np.int64]
Advance = Callable[[int, int], None]
_BATCH = 16
"""Rows that are written side by side: a step reads the weights once for all of them."""


def write(
    model: Path, arch: ModelArch, starts: Sequence[Sequence[int]], length: int, *, seed: int, advance: Advance
) -> Ids:
    """Continue each start to `length` ids: [starts, length]. `advance` is told the tokens done and to do.

    A start that is longer is cut.
    """
    session = open_session(model)
    random = np.random.default_rng(seed)
    texts = np.empty((len(starts), length), np.int64)
    done = 0
    for rows in _batches(starts):
        begun = np.asarray([list(starts[row])[:length] for row in rows], np.int64)
        texts[rows] = _continued(Rows(session, arch, len(rows), length), begun, length, random)
        done += len(rows)
        advance(done * length, texts.size)
    return texts


def _batches(starts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of the starts, those of equal length side by side: rows of one batch are read and written in step."""
    lengths = [len(start) for start in starts]
    for length in sorted(set(lengths)):
        alike = [row for row, each in enumerate(lengths) if each == length]
        for first in range(0, len(alike), _BATCH):
            yield alike[first : first + _BATCH]


def starts_for(
    count: int, *, vocab: Sequence[int], before: Sequence[int], chat: Sequence[int] | None, seed: int
) -> list[list[int]]:
    """First ids of each row: `before` (or for every second row `chat`, an opened user's turn) and a random token."""
    random = np.random.default_rng(seed)
    drawn = random.choice(np.asarray(vocab), count)
    return [[*(chat if chat is not None and i % 2 else before), int(token)] for i, token in enumerate(drawn)]


def _continued(writer: Rows, starts: Ids, length: int, random: np.random.Generator) -> Ids:
    rows, begun = starts.shape
    texts = np.empty((rows, length), np.int64)
    texts[:, :begun] = unread = starts
    for at in range(begun, length):
        texts[:, at] = _drawn(writer.step(unread), random)
        unread = texts[:, at : at + 1]
    return texts


def _drawn(logits: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.int64]:
    """A draw from the softmax of each row."""
    reach = np.cumsum(np.exp(logits - logits.max(-1, keepdims=True)), axis=-1)
    drawn: npt.NDArray[np.int64] = (reach > random.random((len(logits), 1)) * reach[:, -1:]).argmax(-1)
    return drawn

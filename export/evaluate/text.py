"""A text -> perplexity, KL divergence and same top token.

How it is counted. The text's tokens are cut into windows of `window` model inputs; no window sees another. Every
position of a window predicts the token that follows it in the text, also the last one, whose token stands at the start
of the next window. Where the tokenizer asks for a BOS token, each window begins with one and holds one token of text
less; the BOS then predicts the window's first token. So every token of the text is predicted exactly once, except,
without a BOS, the very first; a last window may be shorter. This is how the measurements of README are made.

llama.cpp's perplexity tool counts only the second half of each window, whose predictions have at least half a window
before them, and drops a last window that is not full: `Count.SECOND_HALF` does the same (it leaves out the last
position of a window, one in 256, which we count).

Logits are compared window by window: those of one window are held at a time, of each side.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers

from edgekit.errors import UsageError
from export.divergence import log_softmax
from export.evaluate.reader import Floats, LogitSource
from export.progress import Progress

MAX_TEXT_BYTES = 1 << 30
_CHARS_PER_TOKEN = 16
_MARGIN_TOKENS = 64
_ROWS_AT_ONCE = 16
"""Rows of logits in double precision at a time: 16 of 262,144 are 34 MB."""


class Count(Enum):
    """Which positions of a window count; see the module's text."""

    ALL = "all"
    SECOND_HALF = "second-half"


@dataclass(frozen=True)
class Window:
    """`ids` go in; the logits after `ids[i]` predict `targets[i]`, and count from `first` on."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class TextScore:
    """Means over `tokens` predictions; `kl` is KL(reference || bundle) in nats. Without a reference three are None."""

    tokens: int
    perplexity: float
    reference_perplexity: float | None
    kl: float | None
    same_top_token: float | None


def read_ids(file: Path, tokenizer: tokenizers.Tokenizer, limit_tokens: int | None) -> list[int]:
    """The text's ids, at most `limit_tokens` of them. Control tokens in it are read as text.

    Only as much text is cut into tokens as is needed. Raises UsageError for a file that is missing, too large or not
    UTF-8.
    """
    if not file.is_file():
        raise UsageError(f"--text {file}: there is no such file.")
    if file.stat().st_size > MAX_TEXT_BYTES:
        raise UsageError(f"--text {file}: more than {MAX_TEXT_BYTES:,} bytes. Cut it.")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--text {file} is not UTF-8 text: {error}") from error
    tokenizer.encode_special_tokens = True
    if limit_tokens is None:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)
    size = _CHARS_PER_TOKEN * (limit_tokens + _MARGIN_TOKENS)
    while True:
        ids = tokenizer.encode(text[:size], add_special_tokens=False).ids
        # The margin keeps away from the cut, where the text's tokens may differ.
        if size >= len(text) or len(ids) > limit_tokens + _MARGIN_TOKENS:
            return list(ids[:limit_tokens])
        size *= 2


def cut(ids: Sequence[int], *, window: int, bos: int | None, count: Count = Count.ALL) -> list[Window]:
    """Windows of at most `window` inputs over a text's ids. Raises UsageError if nothing is left to predict."""
    first = window // 2 if count is Count.SECOND_HALF else 0
    start = [] if bos is None else [bos]
    made: list[Window] = []
    for at in range(0, len(ids), window):
        piece = ids[at : at + window + (bos is None)]
        inputs, targets = (*start, *piece[:-1]), piece[1:] if bos is None else piece
        if targets and (count is Count.ALL or len(targets) == window):
            made.append(Window(inputs, tuple(targets), first))
    if not made:
        raise UsageError(f"The text has only {len(ids)} tokens: too short for a window of {window}.")
    return made


def compare(
    bundle: LogitSource, reference: LogitSource | None, windows: Sequence[Window], progress: Progress
) -> TextScore:
    """Run both sides over the windows. `progress` counts windows."""
    inputs = [window.ids for window in windows]
    others: Iterator[Floats | None]
    others = iter([None] * len(windows)) if reference is None else reference.windows(inputs)
    sums = _Sums()
    for done, (window, found) in enumerate(zip(windows, bundle.windows(inputs), strict=True)):
        source = next(others)
        for at in range(window.first, len(window.targets), _ROWS_AT_ONCE):
            rows = slice(at, at + _ROWS_AT_ONCE)
            targets = np.asarray(window.targets[rows])
            sums.add(found[rows], None if source is None else source[rows], targets)
        progress.advance(done + 1, len(windows))
    return sums.score(with_reference=reference is not None)


@dataclass
class _Sums:
    """What grows while windows go by."""

    tokens: int = 0
    loss: float = 0.0
    reference_loss: float = 0.0
    kl: float = 0.0
    same: int = 0

    def add(self, found: Floats, source: Floats | None, targets: npt.NDArray[np.int64]) -> None:
        """Some rows of logits [rows, vocab] of both sides and the tokens that came."""
        each = np.arange(len(targets))
        q = log_softmax(found)
        self.tokens += len(targets)
        self.loss -= float(q[each, targets].sum())
        if source is None:
            return
        p = log_softmax(source)
        self.reference_loss -= float(p[each, targets].sum())
        self.kl += float((np.exp(p) * (p - q)).sum())
        self.same += int((found.argmax(-1) == source.argmax(-1)).sum())

    def score(self, *, with_reference: bool) -> TextScore:
        """The means."""
        return TextScore(
            tokens=self.tokens,
            perplexity=_perplexity(self.loss / self.tokens),
            reference_perplexity=_perplexity(self.reference_loss / self.tokens) if with_reference else None,
            kl=self.kl / self.tokens if with_reference else None,
            same_top_token=self.same / self.tokens if with_reference else None,
        )


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))  # a broken model's loss must not overflow

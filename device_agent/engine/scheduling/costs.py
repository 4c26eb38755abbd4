"""What a step of this model costs on this machine, learnt while it runs. Pure.

Three curves, in seconds: a batched decode by the number of its rows, a prompt's read by its tokens, and a read
that keeps the logits of all its tokens (guesses are verified so), which pays for the vocabulary each time.
"""

import bisect

_WEIGHT = 0.2
"""Of a new measurement: ten steps forget a cold start, one hiccup changes little."""
_MOST_JUMP = 4.0
"""A measurement counts as at most so many times what was known: somebody else had the processor then."""
_PER_TOKEN = 0.3
"""What each further token or row adds to a step's cost until it was measured: SmolLM2 on two cores reads 2 tokens in
1.26 times the time of one, 16 in 5.9 times, 128 in 33 times, and decodes 4 rows in 2.1 times."""
_EXACT = 16
"""Sizes up to here have a point of their own, larger ones share two to an octave."""


class Curve:
    """Seconds by size: measured at some sizes, drawn by lines between them, and by the usual shape beyond them."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._seconds: list[float] = []

    def note(self, size: int, took_s: float) -> None:
        """A step of `size` took so long."""
        point = _point(size)
        took_s *= _shape(point) / _shape(size)
        at = bisect.bisect_left(self._sizes, point)
        if at == len(self._sizes) or self._sizes[at] != point:
            self._sizes.insert(at, point)
            self._seconds.insert(at, took_s)
            return
        known = self._seconds[at]
        self._seconds[at] = known + _WEIGHT * (min(took_s, _MOST_JUMP * known) - known)

    def __call__(self, size: int) -> float:
        """What a step of `size` is expected to take; 0 while nothing at all was measured."""
        if not self._sizes:
            return 0.0
        at = bisect.bisect_left(self._sizes, size)
        if at == len(self._sizes):
            return self._seconds[-1] * _shape(size) / _shape(self._sizes[-1])
        if at == 0:
            return self._seconds[0] * _shape(size) / _shape(self._sizes[0])
        part = (size - self._sizes[at - 1]) / (self._sizes[at] - self._sizes[at - 1])
        return self._seconds[at - 1] + part * (self._seconds[at] - self._seconds[at - 1])


class Costs:
    """The three curves of one model. All of them begin at the same step: one token of one row."""

    def __init__(self) -> None:
        self._decode, self._read, self._verify = Curve(), Curve(), Curve()

    def note_decode(self, rows: int, took_s: float) -> None:
        """A decode of `rows` rows together took so long."""
        self._decode.note(rows, took_s)
        if rows == 1:
            self._read.note(1, took_s)
            self._verify.note(1, took_s)

    def note_read(self, tokens: int, took_s: float) -> None:
        """A read of `tokens`, with one row of logits or none, took so long."""
        self._read.note(tokens, took_s)
        if tokens == 1:
            self._decode.note(1, took_s)

    def note_verify(self, tokens: int, took_s: float) -> None:
        """A read of `tokens` with the logits of each took so long."""
        self._verify.note(tokens, took_s)

    def decode_s(self, rows: int) -> float:
        """A decode of `rows` rows together."""
        return self._decode(rows) or self._read(1) * _shape(rows)

    def verify_s(self, tokens: int) -> float:
        """A read of `tokens` with the logits of each; `tokens` 1 is a plain step."""
        return self._verify(tokens)

    def read_within(self, seconds: float, *, most: int) -> int:
        """The most tokens, up to `most`, whose read is expected to end within `seconds`; 0 if nothing is known."""
        if not self._read(1):
            return 0
        return bisect.bisect_right(range(1, most + 1), seconds, key=self._read)


def _shape(size: int) -> float:
    return 1 + _PER_TOKEN * (size - 1)


def _point(size: int) -> int:
    if size <= _EXACT:
        return size
    octave = 1 << (size.bit_length() - 1)
    half = octave + octave // 2
    return half if size >= half else octave

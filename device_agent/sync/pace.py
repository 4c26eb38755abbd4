"""How fast bytes come, and when the last one will be here. Pure, but for the clock that it is given."""

from collections import deque
from collections.abc import Callable

SPAN_S = 20.0
"""The speed is that of so many last seconds: long enough to be calm, short enough to follow the network."""

LEAST_S = 1.0
"""Before, nobody knows."""


class Pace:
    """Of one download. `clock` only goes forward."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def begin(self, done_bytes: int) -> None:
        """From now on, with so many bytes here already."""
        self._samples = deque([(self._clock(), done_bytes)])

    def bytes_per_s(self, done_bytes: int) -> float | None:
        """With so many bytes here by now; None while nobody knows."""
        now = self._clock()
        samples = self._samples
        if now - samples[-1][0] >= SPAN_S / 100:
            samples.append((now, done_bytes))
        while len(samples) > 2 and now - samples[1][0] >= SPAN_S:
            samples.popleft()
        began, before = samples[0]
        return (done_bytes - before) / (now - began) if now - began >= LEAST_S else None


def eta_s(rest_bytes: int, bytes_per_s: float | None) -> float | None:
    """Seconds that the rest takes; None if nobody knows, or if nothing comes."""
    return rest_bytes / bytes_per_s if bytes_per_s else None

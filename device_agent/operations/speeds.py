"""How fast tokens come: of the last requests of a model, and of everything in the last seconds."""

import collections
import threading
import time
from collections.abc import Callable, Iterable

from device_agent.http.services import Rates, Served

RECENT_REQUESTS = 20
WINDOW_S = 10.0
_MOST_SAMPLES = 256

_Request = tuple[int, float, int, float]
"""Tokens read, seconds up to the first token, tokens after it, seconds for those."""


class Speeds:
    """Implements `Book`. Notes the speed of requests, and samples of the engines' counters whenever somebody looks."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._requests: dict[str, collections.deque[_Request]] = {}
        self._samples: collections.deque[tuple[float, int, int]] = collections.deque(maxlen=_MOST_SAMPLES)

    def note(self, served: Served) -> None:
        """Take note of a request, unless it was cut short or has no tokens."""
        first_s = served.first_token_s
        if first_s is None or not served.output_tokens or served.finish in ("error", "cancelled"):
            return
        read = served.input_tokens - served.cached_tokens
        request = (read, first_s, served.output_tokens - 1, max(0.0, served.total_s - first_s))
        with self._lock:
            self._requests.setdefault(served.model, collections.deque(maxlen=RECENT_REQUESTS)).append(request)

    def of(self, model: str) -> Rates:
        """Of a model's last requests, as their clients saw them: what they waited for others counts."""
        with self._lock:
            known = list(self._requests.get(model, ()))
        return Rates(
            prompt_tokens_per_s=_rate((read, seconds) for read, seconds, _, _ in known),
            decode_tokens_per_s=_rate((written, seconds) for _, _, written, seconds in known),
        )

    def sample(self, *, read: int, written: int) -> Rates:
        """Of the last WINDOW_S, of which samples were taken; `read` and `written` are counters that only grow.

        With no earlier sample within that time there is nothing to compare with, and both are 0.
        """
        now = self._clock()
        with self._lock:
            while self._samples and now - self._samples[0][0] > WINDOW_S:
                self._samples.popleft()
            first = self._samples[0] if self._samples else (now, read, written)
            self._samples.append((now, read, written))
        seconds = now - first[0]
        if seconds <= 0:
            return Rates(prompt_tokens_per_s=0.0, decode_tokens_per_s=0.0)
        return Rates(
            prompt_tokens_per_s=round(max(0, read - first[1]) / seconds, 2),
            decode_tokens_per_s=round(max(0, written - first[2]) / seconds, 2),
        )


def _rate(parts: Iterable[tuple[int, float]]) -> float | None:
    """Tokens a second over all parts; None if there is nothing to divide."""
    tokens, seconds = 0, 0.0
    for count, took_s in parts:
        tokens, seconds = tokens + count, seconds + took_s
    return round(tokens / seconds, 2) if tokens and seconds > 0 else None

"""When to look: at intervals with some chance in them, in windows of the local day, sooner after a failure. Pure."""

import datetime
import random
from collections.abc import Callable, Sequence

from device_agent.sync.records import Window

CHANCE = 0.1
"""Of the interval, either way: a fleet that was switched on at once does not ask at once for ever."""

FIRST_S = 10.0
"""At the most, after the start; then a model is being loaded, which comes first."""

RETRY_S = (60.0, 300.0, 900.0, 1800.0)
"""After the first, second ... failure in a row; then as usual."""

MINUTES = 24 * 60


def minute_of(moment: float) -> int:
    """Minutes since midnight, as this machine's clock on the wall shows them."""
    local = datetime.datetime.fromtimestamp(moment).astimezone()
    return local.hour * 60 + local.minute


def is_open(windows: Sequence[Window], minute: int) -> bool:
    """Whether fetching is allowed at a minute of the day."""
    return not windows or any((minute - w.begin_minute) % MINUTES < _minutes(w) for w in windows)


def _minutes(window: Window) -> int:
    return (window.end_minute - window.begin_minute) % MINUTES


def opens_in_s(windows: Sequence[Window], minute: int) -> float:
    """Seconds until fetching is allowed, at the most; 0 if it is."""
    if is_open(windows, minute):
        return 0.0
    return 60.0 * min((window.begin_minute - minute) % MINUTES for window in windows)


class Rhythm:
    """When the next look is due. `interval_s` 0: never by itself. `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        interval_s: float,
        windows: Sequence[Window],
        *,
        chance: Callable[[], float] = random.random,
        minute: Callable[[float], int] = minute_of,
    ) -> None:
        self._interval_s = interval_s
        self._windows = tuple(windows)
        self._chance = chance
        self._minute = minute
        self._failures = 0
        self._due: float | None = None

    def started(self, now: float) -> None:
        """The first look is soon."""
        if self._interval_s:
            self._due = now + self._chance() * min(FIRST_S, self._interval_s)

    def looked(self, now: float, *, fine: bool) -> None:
        """A look has ended."""
        self._failures = 0 if fine else self._failures + 1
        if not self._interval_s:
            self._due = None
            return
        wait_s = self._interval_s * (1 + CHANCE * (2 * self._chance() - 1))
        if 0 < self._failures <= len(RETRY_S):
            wait_s = min(wait_s, RETRY_S[self._failures - 1] * (1 + self._chance()))
        self._due = now + wait_s

    def due(self) -> float | None:
        """When the next look is, Unix seconds; None: not by itself."""
        return self._due

    def is_due(self, now: float) -> bool:
        """Whether it is time. A clock that was set back does not put it off for longer than usual."""
        if self._due is None:
            return False
        return now >= self._due or self._due - now > self._interval_s * (1 + CHANCE)

    def minute(self, now: float) -> int:
        """Minutes since midnight, by which windows go."""
        return self._minute(now)

    def may_fetch(self, now: float) -> bool:
        """Whether a window is open."""
        return is_open(self._windows, self._minute(now))

    def wait_s(self, now: float) -> float:
        """Seconds until the next look that may fetch; a day if there is none by itself."""
        if self._due is None:
            return 86_400.0
        wait_s = max(0.0, min(self._due - now, self._interval_s * (1 + CHANCE)))
        return wait_s + opens_in_s(self._windows, self._minute(now + wait_s))

"""The least speed: a server that keeps a device waiting with a byte now and then is given up.

A time limit on each read does not end that, since every byte starts it anew (Uptane calls it a slow retrieval attack).
Here each read of the socket tells how long it took and what it brought, heads of answers as well as bodies. Only
waiting counts: a device that is slow to hash, or that holds itself back, does not blame the server.
"""

import io
from collections import deque
from typing import Any

from device_agent.sync.records import Clock
from edgekit.errors import Unreachable

Buffer = Any
"""What can be written to: Python 3.12 gives it a name."""

WINDOW_S = 60.0
_STEP_S = 1.0


class Pace:
    """Watches one connection at a time; `begin` before each request."""

    def __init__(self, *, least_bytes_per_s: float, ticks: Clock) -> None:
        self._least = least_bytes_per_s
        self._ticks = ticks
        self.begin()

    def begin(self) -> None:
        """A new request: nothing was waited for yet."""
        self._waited_s = 0.0
        self._steps: deque[tuple[float, int]] = deque()
        """When (in seconds of waiting) how many bytes came, at most a few for each second."""

    def read(self, raw: io.RawIOBase, buffer: Buffer) -> int | None:
        """Read once from `raw`. Raises Unreachable when the last minute of waiting brought too little."""
        before = self._ticks()
        count = raw.readinto(buffer)
        self._note(max(0.0, self._ticks() - before), count or 0)
        return count

    def _note(self, seconds: float, count: int) -> None:
        self._waited_s += seconds
        if self._steps and self._waited_s - self._steps[-1][0] < _STEP_S:
            at, so_far = self._steps.pop()
            self._steps.append((at, so_far + count))
        else:
            self._steps.append((self._waited_s, count))
        while self._steps[0][0] <= self._waited_s - WINDOW_S:
            self._steps.popleft()
        if self._waited_s >= WINDOW_S and (came := sum(count for _, count in self._steps)) < self._least * WINDOW_S:
            raise Unreachable(
                f"it is too slow: {came:,} bytes came in {WINDOW_S:.0f} s, and {self._least * WINDOW_S:,.0f} must"
            )


class Paced(io.RawIOBase):
    """A stream of which every read is told to a Pace."""

    def __init__(self, raw: io.RawIOBase, pace: Pace) -> None:
        self._raw = raw
        self._pace = pace

    def readable(self) -> bool:
        """Nothing else can be done with it."""
        return True

    def fileno(self) -> int:
        """The socket's."""
        return self._raw.fileno()

    def readinto(self, buffer: Buffer, /) -> int | None:
        """Read once. Raises Unreachable."""
        return self._pace.read(self._raw, buffer)

    def close(self) -> None:
        """The stream too."""
        self._raw.close()
        super().close()

"""The least speed: a server that keeps a device waiting with a byte now and then is given up.

A time limit on each read does not end that, since every byte starts it anew (Uptane calls it a slow retrieval attack).
Here each read of the socket tells how long it took and what it brought, heads of answers as well as bodies. Only
waiting counts: a device that is slow to hash, or that holds itself back, does not blame the server.

And the most that comes beside bodies: http.client reads "100 Continue" again and again, and the lines after the last
chunk (RFC 9112, 7.1.2), as long as a server sends any. However fast they come, they must end.
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

MOST_BESIDE_BYTES = 1 << 20
"""Of one answer that are no part of its body: its head, what frames chunks, and what was read ahead."""
BESIDE_PER_BYTE = 16
"""More of them for each byte of the body: a chunk of one byte takes six."""


class Pace:
    """Watches one connection at a time; `begin` before each request."""

    def __init__(self, *, least_bytes_per_s: float, ticks: Clock) -> None:
        self._least = least_bytes_per_s
        self._ticks = ticks
        self.begin()

    def begin(self) -> None:
        """A new request: nothing was waited for yet."""
        self._read_bytes = self._body_bytes = 0
        self._waited_s = 0.0
        self._steps: deque[tuple[float, int]] = deque()
        """When (in seconds of waiting) how many bytes came, at most a few for each second."""

    def came(self, count: int) -> None:
        """So many bytes of the body were in what was read."""
        self._body_bytes += count

    def read(self, raw: io.RawIOBase, buffer: Buffer) -> int | None:
        """Read once from `raw`. Raises Unreachable when the last minute of waiting brought too little.

        And when too much came that is no part of the body.
        """
        before = self._ticks()
        count = raw.readinto(buffer)
        self._note(max(0.0, self._ticks() - before), count or 0)
        self._read_bytes += count or 0
        if self._read_bytes > MOST_BESIDE_BYTES + (1 + BESIDE_PER_BYTE) * self._body_bytes:
            raise Unreachable(f"it sends without end what is no part of any file ({self._read_bytes:,} bytes by now)")
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

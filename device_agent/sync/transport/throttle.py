"""The most bytes a second, and the hours in which anything may be fetched at all."""

from collections.abc import Sequence

from device_agent.sync.records import Stop, Window
from device_agent.sync.transport.surroundings import Surroundings
from edgekit.errors import Unreachable

PIECE_BYTES = 1 << 18
_BURST_S = 0.1


def is_open(windows: Sequence[Window], minute: int) -> bool:
    """Whether fetching is allowed at that minute of the day; without any window it always is."""
    return not windows or any(
        window.begin_minute <= minute < window.end_minute
        if window.begin_minute <= window.end_minute
        else minute >= window.begin_minute or minute < window.end_minute
        for window in windows
    )


class Throttle:
    """A token bucket that may go into debt: what came is paid for by waiting afterwards.

    The bucket holds a tenth of a second at most, so that a pause is not made up for by a burst.
    """

    def __init__(
        self, most_bytes_per_s: int | None, windows: Sequence[Window], *, stop: Stop, surroundings: Surroundings
    ) -> None:
        self._rate = most_bytes_per_s or None
        self._windows = tuple(windows)
        self._stop = stop
        self._around = surroundings
        self._tokens = 0.0
        self._filled = surroundings.ticks()

    @property
    def piece_bytes(self) -> int:
        """How much to read at once, so that what is slow goes evenly."""
        return PIECE_BYTES if self._rate is None else min(PIECE_BYTES, max(1 << 12, int(self._rate * _BURST_S)))

    def check(self, *, hours: bool = True) -> None:
        """Raises Unreachable when it is time to stop, or outside of the `hours` if those count."""
        if self._stop.is_set():
            raise Unreachable("the update was stopped")
        if hours and not is_open(self._windows, self._around.minute(self._around.clock())):
            raise Unreachable("it is outside of the hours in which this device may fetch (the setting sync.windows)")

    def paid(self, count: int) -> None:
        """`count` bytes came: wait as long as they should have taken. Raises Unreachable when it is time to stop."""
        if self._rate is None:
            return
        now = self._around.ticks()
        self._tokens = min(self._rate * _BURST_S, self._tokens + (now - self._filled) * self._rate) - count
        self._filled = now
        if self._tokens < 0 and self._stop.wait(-self._tokens / self._rate):
            raise Unreachable("the update was stopped")

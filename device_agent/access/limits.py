"""Rules of quotas: requests of a minute, requests at a time, tokens of a day. Pure: `now` is a parameter."""

import math
from collections import deque

from device_agent.access.keys import Quotas
from device_agent.http.services import Standing
from device_agent.ledger.days import seconds_left
from edgekit.errors import QuotaExceeded

MINUTE_S = 60.0


class Tally:
    """What one key is using: requests that run, and when those of the last minute came (a monotonic clock's seconds).

    A sliding window and not a bucket: in *any* 60 s there are no more requests than the quota says. It holds no more
    times than the quota allows.
    """

    def __init__(self) -> None:
        self.running = 0
        self._times: deque[float] = deque()

    def lately(self, now: float) -> int:
        """Requests of the last minute."""
        while self._times and self._times[0] <= now - MINUTE_S:
            self._times.popleft()
        return len(self._times)

    def free_in_s(self, now: float, *, limit: int) -> float:
        """Seconds until the window has room for one more, 0 if it has."""
        count = self.lately(now)
        if count < limit:
            return 0.0
        return self._times[count - limit] + MINUTE_S - now if limit else MINUTE_S

    def begin(self, now: float, *, timed: bool) -> None:
        """One more runs; `timed` where a quota will ask when it came."""
        if timed:
            self._times.append(now)
        self.running += 1


def check(quotas: Quotas, tally: Tally, *, tokens_today: int, now: float, ticks: float) -> None:
    """Whether one more request may run. `now` is Unix time, `ticks` the tally's clock.

    Raises QuotaExceeded, which says when to come again. A request is let in while any of the day's tokens are left:
    nobody knows what it will need, so the last ones of a day may go over, and no more than `concurrent` of them.
    """
    limit = quotas.tokens_per_day
    if limit is not None and tokens_today >= limit:
        raise QuotaExceeded(
            f"This key has used its {limit:,} tokens of today ({tokens_today:,}). A new day begins at 00:00 UTC.",
            seconds_left(now),
        )
    if quotas.concurrent is not None and tally.running >= quotas.concurrent:
        raise QuotaExceeded(f"This key may run {quotas.concurrent:,} requests at a time, and they are running.", 1)
    if quotas.requests_per_minute is not None:
        wait_s = tally.free_in_s(ticks, limit=quotas.requests_per_minute)
        if wait_s > 0:
            raise QuotaExceeded(
                f"This key may send {quotas.requests_per_minute:,} requests a minute.", max(1, math.ceil(wait_s))
            )


def standing(quotas: Quotas, tally: Tally, *, tokens_today: int, now: float, ticks: float) -> Standing:
    """What is left, for the headers that OpenAI's clients read."""
    requests, tokens = quotas.requests_per_minute, quotas.tokens_per_day
    return Standing(
        requests=requests,
        requests_left=0 if requests is None else max(0, requests - tally.lately(ticks)),
        requests_reset_s=0.0 if requests is None else tally.free_in_s(ticks, limit=requests),
        tokens=tokens,
        tokens_left=0 if tokens is None else max(0, tokens - tokens_today),
        tokens_reset_s=seconds_left(now),
    )

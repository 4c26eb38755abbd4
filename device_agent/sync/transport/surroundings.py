"""What the transport knows of the machine around it, in one record that tests replace."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from device_agent.sync.records import Clock


def minute_of_day(now: float) -> int:
    """Minutes since midnight, as this machine's time zone says."""
    local = time.localtime(now)
    return local.tm_hour * 60 + local.tm_min


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`clock` is Unix time, for people's hours and servers' dates; `ticks` never jumps, and measures durations.

    `chance` gives numbers of 0 to 1, `minute` is the minute of the local day of a Unix time, and proxies are found in
    `environment`.
    """

    clock: Clock
    environment: Mapping[str, str]
    ticks: Clock = time.monotonic
    chance: Callable[[], float] = random.random
    minute: Callable[[float], int] = minute_of_day

"""Days of the ledger: UTC, as texts that sort ("2026-11-23"). Pure."""

import datetime
import math

DAY_S = 86_400
_EPOCH = datetime.date(1970, 1, 1)


def day_of(at: float) -> str:
    """The UTC day of a Unix time; the first one of all for a time that is none."""
    try:
        return (_EPOCH + datetime.timedelta(days=math.floor(at / DAY_S))).isoformat()
    except (OverflowError, ValueError):
        return _EPOCH.isoformat()


def seconds_left(at: float) -> int:
    """Seconds until the next UTC day begins, at least 1."""
    return DAY_S - int(at % DAY_S)


def first_day(now: float, days: int) -> str:
    """The first of the last `days` days, today being one of them."""
    return day_of(now - (days - 1) * DAY_S)

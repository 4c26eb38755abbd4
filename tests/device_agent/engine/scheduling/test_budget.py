import pytest

from device_agent.engine.scheduling.budget import (
    MOST_PREFIX_BYTES,
    MOST_SLOTS,
    USUAL_SLOTS,
    prefix_bytes_for,
    slots_for,
)

GB = 1 << 30


@pytest.mark.parametrize(
    ("wanted", "most_rows", "bytes_per_token", "context_tokens", "available_bytes", "expected"),
    [
        (None, 8, 46_080, 8192, 8 * GB, USUAL_SLOTS),
        (None, 8, 655_360, 2048, 8 * GB, 3),
        (None, 8, 655_360, 2048, 1 * GB, 1),
        (None, 8, 65_536, 131_072, 4 * GB, USUAL_SLOTS),
        (None, 1, 1, 100, 8 * GB, 1),
        (None, 8, 0, 100, 8 * GB, USUAL_SLOTS),
        (6, 8, 655_360, 2048, 1 * GB, 6),
        (100, 100, 1, 100, 8 * GB, MOST_SLOTS),
        (4, 1, 1, 100, 8 * GB, 1),
    ],
    ids=[
        *("plenty of memory", "three conversations fit", "not even one fits", "a conversation is seldom that long"),
        *("a graph with one row", "free", "as many as were asked for", "but not too many", "nor more than there are"),
    ],
)
def test_slots(
    wanted: int | None, most_rows: int, bytes_per_token: int, context_tokens: int, available_bytes: int, expected: int
) -> None:
    found = slots_for(
        wanted,
        most_rows=most_rows,
        bytes_per_token=bytes_per_token,
        context_tokens=context_tokens,
        available_bytes=available_bytes,
    )
    assert found == expected


@pytest.mark.parametrize(
    ("wanted", "total_bytes", "expected"),
    [(None, 4 * GB, 4 * GB // 10), (None, 64 * GB, MOST_PREFIX_BYTES), (0, 64 * GB, 0), (5 * GB, GB, 5 * GB)],
)
def test_bytes_of_kept_texts(wanted: int | None, total_bytes: int, expected: int) -> None:
    assert prefix_bytes_for(wanted, total_bytes=total_bytes) == expected

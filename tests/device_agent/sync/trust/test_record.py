"""The rules about versions, keys and time."""

import pytest

from device_agent.sync.trust.record import (
    DAY_S,
    FORMAT,
    Generation,
    Record,
    Standing,
    check_versions,
    clock_to_keep,
    effective_time,
    generations_after,
    parse,
    raised,
    revoked,
)
from edgekit.errors import TrustLost, Untrusted

RECORD = Record(format=FORMAT, anchor="0" * 64, clock=5 * DAY_S, issued=int(6 * DAY_S))


def standings(**versions: int | tuple[int, str]) -> dict[str, Standing]:
    """`role=3`, or `role=(3, "ab")` with the keys a and b."""
    found = {role: value if isinstance(value, tuple) else (value, "k") for role, value in versions.items()}
    return {role: Standing(tuple(keys), version) for role, (version, keys) in found.items()}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (standings(), standings(root=1, timestamp=1)),
        (standings(root=1, timestamp=3), standings(root=1, timestamp=3)),
        (standings(timestamp=9), standings(timestamp=(1, "l"))),
        (standings(timestamp=(9, "ab")), standings(timestamp=(1, "bc"))),
        (standings(snapshot=9, releases=9, targets=9), standings(snapshot=(1, "l"), releases=1, targets=1)),
        (standings(releases=9, snapshot=1), standings(releases=(1, "l"), snapshot=1)),
        (standings(rollout=9), standings(root=2)),
    ],
    ids=["first", "same", "other key", "one of two revoked", "snapshot revoked", "own revoked", "role gone"],
)
def test_versions_that_are_fine(before: dict[str, Standing], now: dict[str, Standing]) -> None:
    check_versions(before, now)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (standings(timestamp=9), standings(timestamp=8)),
        (standings(root=9), standings(root=(8, "l"))),
        (standings(timestamp=9), standings(timestamp=(8, "kl"))),
        (standings(timestamp=9, snapshot=1), standings(timestamp=8, snapshot=(1, "l"))),
        (standings(snapshot=9, timestamp=1), standings(snapshot=8, timestamp=(1, "l"))),
        (standings(releases=9, snapshot=1, targets=1), standings(releases=8, snapshot=1, targets=(1, "l"))),
    ],
    ids=["older", "root with other keys", "a key more", "snapshot's keys", "timestamp's keys", "targets' keys"],
)
def test_versions_that_fell(before: dict[str, Standing], now: dict[str, Standing]) -> None:
    with pytest.raises(Untrusted, match="after 9 had been seen"):
        check_versions(before, now)


def test_a_key_more_revokes_nothing() -> None:
    assert not revoked(None, Standing(("a",), 1))
    assert not revoked(Standing(("a",), 1), None)
    assert not revoked(Standing(("a",), 1), Standing(("a", "b"), 1))
    assert revoked(Standing(("a", "b"), 1), Standing(("a",), 1))


@pytest.mark.parametrize(
    ("machine", "built", "expected"), [(0.0, 0.0, 6.0), (7.0, 0.0, 7.0), (0.0, 8.0, 8.0), (5.5, 1.0, 6.0)]
)
def test_time_is_the_latest_that_anybody_vouches_for(machine: float, built: float, expected: float) -> None:
    assert effective_time(RECORD, machine=machine * DAY_S, built=built * DAY_S) == expected * DAY_S


def test_a_clock_is_kept_in_days_and_only_if_metadata_bears_it_out() -> None:
    assert clock_to_keep(RECORD, machine=7.9 * DAY_S, fresh=True) == 7 * DAY_S
    assert clock_to_keep(RECORD, machine=7.9 * DAY_S, fresh=False) == RECORD.clock
    assert clock_to_keep(RECORD, machine=0, fresh=True) == RECORD.clock


def test_floors_only_rise() -> None:
    assert raised({"a": 1, "b": 5}, {"a": 3, "b": 2, "c": 4}) == {"a": 3, "b": 5, "c": 4}


def test_the_generations_that_are_kept() -> None:
    def generation(number: int, *, whole: bool) -> Generation:
        return Generation(number, f"{number:064x}", whole)

    first, second, failed, third = (
        generation(1, whole=True),
        generation(2, whole=True),
        generation(3, whole=False),
        generation(4, whole=True),
    )
    assert generations_after((), first) == (first,)
    assert generations_after((second, first), failed) == (failed, second, first)
    assert generations_after((failed, second, first), generation(5, whole=False))[1:] == (second, first)
    assert generations_after((failed, second, first), third) == (third, second)


def test_a_record_is_read_as_it_was_written() -> None:
    assert parse(RECORD.to_bytes()) == RECORD


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, RECORD.to_bytes()[:-1]])
def test_what_is_no_record(raw: bytes) -> None:
    with pytest.raises(TrustLost):
        parse(raw)

"""Tokens a second, of requests and of counters."""

import pytest

from device_agent.http.services import Caller, Rates, Served
from device_agent.operations.speeds import RECENT_REQUESTS, Speeds

NOTHING = Rates(prompt_tokens_per_s=None, decode_tokens_per_s=None)


def served(
    *,
    read: int = 100,
    cached: int = 0,
    written: int = 11,
    first_s: float | None = 2.0,
    total_s: float = 7.0,
    finish: str = "stop",
) -> Served:
    return Served(
        at=0.0,
        caller=Caller(),
        dialect="chat",
        model="a",
        adapter=None,
        sha256="",
        input_tokens=read + cached,
        cached_tokens=cached,
        output_tokens=written,
        first_token_s=first_s,
        total_s=total_s,
        finish=finish,
    )


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_model_is_as_fast_as_its_requests_were() -> None:
    speeds = Speeds()
    speeds.note(served(cached=1_000))
    assert speeds.of("a") == Rates(prompt_tokens_per_s=50.0, decode_tokens_per_s=2.0)
    assert speeds.of("b") == NOTHING


def test_only_the_last_requests_count_each_by_its_tokens() -> None:
    speeds = Speeds()
    for _ in range(100):
        speeds.note(served(read=1, written=2))
    for _ in range(RECENT_REQUESTS - 1):
        speeds.note(served(read=100, first_s=1.0, total_s=1.0))
    speeds.note(served(read=2_000, first_s=10.0, total_s=12.0, written=201))
    assert speeds.of("a").prompt_tokens_per_s == pytest.approx((19 * 100 + 2_000) / 29, abs=0.01)
    assert speeds.of("a").decode_tokens_per_s == pytest.approx((19 * 10 + 200) / 2, abs=0.01)


@pytest.mark.parametrize(
    "unfit",
    [served(first_s=None), served(written=0), served(finish="cancelled"), served(finish="error")],
    ids=["nothing came", "no tokens", "cancelled", "failed"],
)
def test_requests_that_were_cut_short_say_nothing_of_speed(unfit: Served) -> None:
    speeds = Speeds()
    speeds.note(unfit)
    assert speeds.of("a") == NOTHING


def test_one_token_says_nothing_of_decoding() -> None:
    speeds = Speeds()
    speeds.note(served(written=1, total_s=2.0))
    assert speeds.of("a") == Rates(prompt_tokens_per_s=50.0, decode_tokens_per_s=None)


def test_counters_are_compared_with_samples_of_the_last_seconds() -> None:
    clock = Clock()
    speeds = Speeds(clock=clock)
    still = Rates(prompt_tokens_per_s=0.0, decode_tokens_per_s=0.0)
    assert speeds.sample(read=1_000, written=1_000) == still
    assert speeds.sample(read=2_000, written=1_000) == still  # in the same moment
    clock.now += 4
    assert speeds.sample(read=1_400, written=1_020) == Rates(prompt_tokens_per_s=100.0, decode_tokens_per_s=5.0)
    clock.now += 8  # 12 s after the first one, 8 s after the last
    assert speeds.sample(read=1_400, written=1_100) == Rates(prompt_tokens_per_s=0.0, decode_tokens_per_s=10.0)
    clock.now += 3_600
    assert speeds.sample(read=9_999, written=9_999) == still  # an hour's tokens are not the last seconds'

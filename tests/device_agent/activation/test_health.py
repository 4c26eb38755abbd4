"""What is made of what a trial's process said, or of how it died."""

import msgspec
import pytest

from device_agent.activation.health import Ended, Report, judged
from edgekit.release.manifest import HealthFloor

FLOOR = HealthFloor(agreement=0.9, decode_tokens_per_s=10.0, rss_bytes=1_000_000, probe_s=30.0)
FINE = Report(golden=10, right=10, decode_tokens_per_s=20.0, rss_bytes=900_000, load_s=1.0)


def said(**fields: object) -> Ended:
    return Ended(0, msgspec.json.encode(msgspec.structs.replace(FINE, **fields)))


@pytest.mark.parametrize(
    "ended",
    [
        said(),
        said(right=9),
        said(decode_tokens_per_s=10.0),
        said(rss_bytes=1_000_000),
        said(golden=0, right=0),
        said(decode_tokens_per_s=None),
    ],
)
def test_what_reaches_the_floors_may_serve(ended: Ended) -> None:
    assert judged(ended, FLOOR).ok


def test_figures_are_those_that_were_measured() -> None:
    expected = {"load_s": 1.0, "rss_bytes": 900_000.0, "agreement": 0.9, "decode_tokens_per_s": 20.0}
    assert judged(said(right=9), FLOOR).figures == expected


@pytest.mark.parametrize(
    ("ended", "reason", "final"),
    [
        (said(right=8), "8 of 10 golden answers come out, and 90% have to", True),
        (said(problem="its logits hold values that are no numbers"), "no numbers", True),
        (said(rss_bytes=1_000_001), "it takes 1 MB of memory", True),
        (said(decode_tokens_per_s=9.9), "it writes 9.9 tokens a second, and has to write 10.0", False),
        (Ended(None, b""), "did not end within 30 seconds", False),
        (Ended(None, msgspec.json.encode(FINE)), "did not end within 30 seconds", False),
        (Ended(-9, b""), "no memory left", False),
        (Ended(-11, b""), "ended with SIGSEGV", False),
        (Ended(-250, b""), "ended with signal 250", False),
        (Ended(1, b"", "MemoryError: no"), "ended with code 1: MemoryError: no", False),
        (Ended(3, msgspec.json.encode(FINE)), "ended with code 3", False),
        (Ended(0, b""), "without a report", False),
        (Ended(0, b"hello"), "without a report", False),
        (Ended(0, b"\xff\xfe"), "without a report", False),
        (Ended(0, b"[" * 60_000), "without a report", False),
        (Ended(0, b'{"golden": "many"}'), "without a report", False),
        (Ended(0, b'{"decode_tokens_per_s": NaN}'), "without a report", False),
    ],
)
def test_f1_what_does_not_may_not_and_says_why(ended: Ended, reason: str, *, final: bool) -> None:
    verdict = judged(ended, FLOOR)
    assert not verdict.ok
    assert reason in verdict.reason
    assert verdict.final is final


def test_a_reason_has_an_end() -> None:
    assert len(judged(said(problem="x" * 10_000), FLOOR).reason) <= 500
    assert len(judged(Ended(1, b"", "x" * 10_000), FLOOR).reason) <= 500

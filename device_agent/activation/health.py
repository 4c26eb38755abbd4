"""What a release on trial says of itself, and whether that is enough. Pure."""

import signal
from dataclasses import dataclass

import msgspec

from device_agent.activation.records import Verdict
from edgekit.release.manifest import HealthFloor

MOST_REPORT_BYTES = 64 << 10
SIGKILL = 9
_MOST_REASON_CHARS = 500


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of JSON on the standard output of the trial (device_agent/activation/trial.py).

    `problem` is what is wrong with the release, "" if nothing is. Of `golden` tokens (or texts, for an encoder) `right`
    came out; no release need have any. Speed is in tokens a second, memory the most that the process ever had.
    """

    problem: str = ""
    golden: int = 0
    right: int = 0
    decode_tokens_per_s: float | None = None
    rss_bytes: int = 0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How the process of a trial ended.

    `code` None: it was killed because its time was over. `said` is what it wrote, perhaps cut, and `last_words` the end
    of what it wrote to standard error.
    """

    code: int | None
    said: bytes
    last_words: str = ""


def judged(ended: Ended, floor: HealthFloor) -> Verdict:
    """Whether the release may serve."""
    if ended.code != 0:
        return Verdict(ok=False, reason=_death(ended, floor), final=False)
    try:
        report = msgspec.json.decode(ended.said, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict(ok=False, reason="its process ended without a report that can be read", final=False)
    figures = _figures(report)
    if report.problem:
        return Verdict(ok=False, reason=report.problem[:_MOST_REASON_CHARS], figures=figures)
    return _measured(report, floor, figures)


def _measured(report: Report, floor: HealthFloor, figures: dict[str, float]) -> Verdict:
    if report.right < floor.agreement * report.golden:
        said = f"{report.right} of {report.golden} golden answers come out, and {floor.agreement:.0%} have to"
        return Verdict(ok=False, reason=said, figures=figures)
    if floor.rss_bytes is not None and report.rss_bytes > floor.rss_bytes:
        said = f"it takes {report.rss_bytes / 1e6:,.0f} MB of memory, and may take {floor.rss_bytes / 1e6:,.0f}"
        return Verdict(ok=False, reason=said, figures=figures)
    speed = report.decode_tokens_per_s
    if speed is not None and not speed >= floor.decode_tokens_per_s:  # whoever else computes may have slowed it down
        said = f"it writes {speed:.1f} tokens a second, and has to write {floor.decode_tokens_per_s:.1f}"
        return Verdict(ok=False, reason=said, figures=figures, final=False)
    return Verdict(ok=True, figures=figures)


def _figures(report: Report) -> dict[str, float]:
    found = {"load_s": report.load_s, "rss_bytes": float(report.rss_bytes)}
    if report.golden:
        found["agreement"] = report.right / report.golden
    if report.decode_tokens_per_s is not None:
        found["decode_tokens_per_s"] = report.decode_tokens_per_s
    return found


def _death(ended: Ended, floor: HealthFloor) -> str:
    code = ended.code
    if code is None:
        return f"its trial did not end within {floor.probe_s:,.0f} seconds"
    if code == -SIGKILL:
        return "its process was killed, most likely because the machine had no memory left"
    how = _signal_name(-code) if code < 0 else f"code {code}"
    words = f": {ended.last_words}" if ended.last_words else ""
    return f"its process ended with {how}{words}"[:_MOST_REASON_CHARS]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

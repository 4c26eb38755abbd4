"""Everything that CI checks, as a table; each runs in a process of its own, and all run whatever happens.

The longest runs beside all the others, which take turns: that is two cores' work. No test may mind.
"""

import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from environment import ROOT

NAMES = ("style", "format", "types", "device", "crashes", "package", "clients", "tests")
LONGEST = "tests"
REPORTS = ROOT / ".cache" / "checks"


@dataclass(frozen=True)
class Check:
    """A command with arguments; `report` is where pytest counts its tests, if it is pytest."""

    name: str
    command: tuple[str, ...]
    report: Path | None = None


@dataclass(frozen=True)
class Result:
    """Counts of one check: a check that is not pytest is one test."""

    name: str
    seconds: float
    passed: int
    failed: int
    skipped: int = 0


@dataclass(frozen=True)
class Pythons:
    """Interpreters: with everything, with the device's install only, and with the client libraries and no edgekit."""

    full: Path
    device: Path
    clients: Path


def select(names: Sequence[str], pythons: Pythons, *, pytest_arguments: Sequence[str] = ()) -> list[Check]:
    """The named checks in their order. `tests` leaves out what others run, unless somebody asks for certain tests."""
    python = pythons.full
    others = (("device", "--build-side"), ("crashes", "--ignore=tests/crashes"))
    left_out = tuple(option for name, option in others if name in names and not pytest_arguments)

    def pytest(name: str, interpreter: Path, *arguments: str) -> Check:
        report = REPORTS / f"{name}.xml"
        return Check(name, (str(interpreter), "-m", "pytest", f"--junitxml={report}", *arguments), report)

    table = (
        Check("style", (str(python), "-m", "ruff", "check", ".")),
        Check("format", (str(python), "-m", "ruff", "format", "--check", ".")),
        Check("types", (str(python), "-m", "mypy")),
        pytest("device", pythons.device, "--device-only", "-p", "no:cacheprovider"),
        pytest("crashes", python, "-p", "no:cacheprovider", "tests/crashes"),
        Check("package", (str(python), str(ROOT / "packaging" / "wheel_contents.py"))),
        # Warnings of other people's libraries about each other are not errors of ours.
        pytest("clients", pythons.clients, "-Wdefault", "-ofilterwarnings=", "--clients", str(python), "tests/clients"),
        pytest("tests", python, *left_out, *pytest_arguments),
    )
    return [check for check in table if check.name in names]


def run(checks: Sequence[Check]) -> int:
    """Run all, the longest beside the others, then print a table and the sum; 1 if any failed."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    longest = [check for check in checks if check.name == LONGEST]
    others = [check for check in checks if check.name != LONGEST]
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as beside:
        try:
            waiting = beside.submit(_run_all, others, stop, aside=bool(longest))
            found = {result.name: result for result in (*_run_all(longest, stop), *waiting.result())}
        finally:
            stop.set()  # Ctrl-C ends what runs; what has not begun must not begin then
    results = [found[check.name] for check in checks]
    print("\n" + "\n".join(table(results)))
    return 1 if any(result.failed for result in results) else 0


def _run_all(checks: Sequence[Check], stop: threading.Event, *, aside: bool = False) -> list[Result]:
    """One after the other. Those that run `aside` say all that they have to say at their end."""
    results = []
    for check in checks:
        if stop.is_set():
            break
        title = f"\n=== {check.name}: {' '.join(check.command[1:])}"
        if not aside:
            print(title, flush=True)
        result, said = _run(check, aside=aside)
        if aside:
            print(f"{title}\n{said}", flush=True)
        results.append(result)
    return results


def _run(check: Check, *, aside: bool = False) -> tuple[Result, str]:
    """The result, and what the check said if nobody has read it yet."""
    if check.report is not None:
        check.report.unlink(missing_ok=True)  # an old report must not speak for a run that died
    started = time.monotonic()
    pipe = subprocess.PIPE if aside else None
    done = subprocess.run(
        check.command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT if aside else None, check=False
    )
    said = (done.stdout or b"").decode(errors="replace")
    seconds = time.monotonic() - started
    if check.report is not None and check.report.is_file():
        return counts(check.name, seconds, check.report.read_text(encoding="utf-8"), done.returncode), said
    return Result(check.name, seconds, passed=int(done.returncode == 0), failed=int(done.returncode != 0)), said


def counts(name: str, seconds: float, report: str, code: int) -> Result:
    """A Result from pytest's JUnit XML and exit code. Pure. An exit code without a failed test counts as one."""
    suites = list(ET.fromstring(report).iter("testsuite"))  # noqa: S314 - pytest wrote it a moment ago

    def total(*fields: str) -> int:
        return sum(int(suite.get(field, "0")) for suite in suites for field in fields)

    failed = total("failures", "errors")
    passed = total("tests") - failed - total("skipped")
    return Result(name, seconds, passed, max(failed, int(code != 0)), total("skipped"))


def table(results: Sequence[Result]) -> list[str]:
    """The summary's lines; the last one is the sum."""
    lines = [f"{'check':<10} {'result':<8} {'passed':>7} {'failed':>7} {'seconds':>8}"]
    for result in results:
        verdict = "FAILED" if result.failed else "ok"
        lines.append(f"{result.name:<10} {verdict:<8} {result.passed:>7} {result.failed:>7} {result.seconds:>8.1f}")
    skipped = sum(result.skipped for result in results)
    passed, failed = sum(result.passed for result in results), sum(result.failed for result in results)
    lines.append(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return lines


if __name__ == "__main__":
    sys.exit("Run: python3 packaging/bootstrap.py test")

"""Everything that CI checks, as a table; each runs in a process of its own, and all run whatever happens."""

import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from environment import ROOT

NAMES = ("style", "format", "types", "device", "package", "clients", "tests")
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
    """The named checks in their order. What `device` runs `tests` leaves out, unless somebody asks for tests."""
    python = pythons.full
    side = () if pytest_arguments or "device" not in names else ("--build-side",)

    def pytest(name: str, interpreter: Path, *arguments: str) -> Check:
        report = REPORTS / f"{name}.xml"
        return Check(name, (str(interpreter), "-m", "pytest", f"--junitxml={report}", *arguments), report)

    table = (
        Check("style", (str(python), "-m", "ruff", "check", ".")),
        Check("format", (str(python), "-m", "ruff", "format", "--check", ".")),
        Check("types", (str(python), "-m", "mypy")),
        pytest("device", pythons.device, "--device-only", "-p", "no:cacheprovider"),
        Check("package", (str(python), str(ROOT / "packaging" / "wheel_contents.py"))),
        # Warnings of other people's libraries about each other are not errors of ours.
        pytest("clients", pythons.clients, "-Wdefault", "-ofilterwarnings=", "--clients", str(python), "tests/clients"),
        pytest("tests", python, *side, *pytest_arguments),
    )
    return [check for check in table if check.name in names]


def run(checks: Sequence[Check]) -> int:
    """Run all, then print a table and the sum; 1 if any failed."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    results = []
    for check in checks:
        print(f"\n=== {check.name}: {' '.join(check.command[1:])}", flush=True)
        results.append(_run(check))
    print("\n" + "\n".join(table(results)))
    return 1 if any(result.failed for result in results) else 0


def _run(check: Check) -> Result:
    if check.report is not None:
        check.report.unlink(missing_ok=True)  # an old report must not speak for a run that died
    started = time.monotonic()
    code = subprocess.call(check.command, cwd=ROOT)
    seconds = time.monotonic() - started
    if check.report is not None and check.report.is_file():
        return counts(check.name, seconds, check.report.read_text(encoding="utf-8"), code)
    return Result(check.name, seconds, passed=int(code == 0), failed=int(code != 0))


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

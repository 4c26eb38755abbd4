"""All checks run whatever happens, and the last line adds them up."""

import sys
import threading
from pathlib import Path

import checks
import pytest
from checks import Check, Result, counts, table

REPORT = (
    '<testsuites><testsuite tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"/></testsuites>'
)


@pytest.mark.parametrize(
    ("tests", "failures", "errors", "skipped", "code", "expected"),
    [
        pytest.param(10, 0, 0, 0, 0, (10, 0, 0), id="all pass"),
        pytest.param(10, 2, 1, 3, 1, (4, 3, 3), id="failures, errors and skips"),
        pytest.param(10, 0, 0, 0, 2, (10, 1, 0), id="interrupted after passing tests"),
        pytest.param(0, 0, 0, 0, 5, (0, 1, 0), id="nothing collected"),
    ],
)
def test_counts_come_from_the_report_and_the_exit_code(
    tests: int, failures: int, errors: int, skipped: int, code: int, expected: tuple[int, int, int]
) -> None:
    report = REPORT.format(tests=tests, failures=failures, errors=errors, skipped=skipped)
    result = counts("tests", 1.0, report, code)
    assert (result.passed, result.failed, result.skipped) == expected


def test_the_last_line_is_the_sum() -> None:
    results = [Result("style", 0.5, 1, 0), Result("tests", 60.0, 90, 2, 3)]
    lines = table(results)
    assert lines[1].split() == ["style", "ok", "1", "0", "0.5"]
    assert lines[2].split() == ["tests", "FAILED", "90", "2", "60.0"]
    assert lines[-1] == "91 passed, 2 failed, 3 skipped"
    assert table(results[:1])[-1] == "1 passed, 0 failed"


def python(name: str, program: str, report: Path | None = None) -> Check:
    return Check(name, (sys.executable, "-c", program), report)


def test_a_failed_check_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "REPORTS", tmp_path / "reports")
    mark = tmp_path / "ran"
    code = checks.run([python("bad", "raise SystemExit(3)"), python("good", f"open({str(mark)!r}, 'w').close()")])
    assert code == 1
    assert mark.exists()


def test_the_longest_runs_beside_the_others_which_are_heard_at_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each waits for the other: neither could end if they took turns."""
    monkeypatch.setattr(checks, "REPORTS", tmp_path)
    meet = "import os, pathlib\npathlib.Path({0!r}).touch()\nwhile not os.path.exists({1!r}): pass\nprint('met')"
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    chosen = [python("style", meet.format(one, two)), python(checks.LONGEST, meet.format(two, one))]
    assert checks.run(chosen) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines.count("met") == 2
    assert lines[lines.index("check      result    passed  failed  seconds") + 1].startswith("style")


def test_what_has_not_begun_when_it_is_stopped_does_not_begin() -> None:
    stop = threading.Event()
    stop.set()
    assert checks._run_all([python("good", "")], stop) == []


def test_checks_that_pass_exit_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "REPORTS", tmp_path)
    assert checks.run([python("good", "")]) == 0
    assert capsys.readouterr().out.endswith("\n1 passed, 0 failed\n")


def test_the_report_of_an_earlier_run_does_not_speak_for_one_that_died(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(REPORT.format(tests=10, failures=0, errors=0, skipped=0), encoding="utf-8")
    result, _ = checks._run(python("tests", "raise SystemExit(4)", report))
    assert (result.passed, result.failed) == (0, 1)


def test_every_name_is_a_check_and_device_and_clients_have_their_own_python() -> None:
    chosen = checks.select(checks.NAMES, checks.Pythons(Path("all"), Path("device"), Path("clients")))
    assert tuple(check.name for check in chosen) == checks.NAMES
    assert {check.name for check in chosen if check.command[0] == "device"} == {"device"}
    assert {check.name for check in chosen if check.command[0] == "clients"} == {"clients"}
    assert all(check.report for check in chosen if "pytest" in check.command)


@pytest.mark.parametrize(
    ("names", "arguments", "expected"),
    [
        pytest.param(checks.NAMES, (), ["--build-side", "--ignore=tests/crashes"], id="all checks"),
        pytest.param(("tests",), (), [], id="tests alone"),
        pytest.param(("tests",), ("-k", "x"), ["-k", "x"], id="chosen tests"),
    ],
)
def test_tests_leave_out_what_other_checks_run(
    names: tuple[str, ...], arguments: tuple[str, ...], expected: list[str]
) -> None:
    pythons = checks.Pythons(Path("all"), Path("device"), Path("clients"))
    chosen = checks.select(names, pythons, pytest_arguments=arguments)
    found = chosen[-1].command
    assert list(found[found.index(f"--junitxml={chosen[-1].report}") + 1 :]) == expected

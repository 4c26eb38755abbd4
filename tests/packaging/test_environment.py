"""What an environment remembers, and how pip's talk is condensed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest
from environment import (
    Install,
    SetupError,
    Stamp,
    explain,
    fresh_stamp,
    prepare,
    python_of,
    read_stamp,
    step_in,
    write_stamp,
)
from screen import Screen

TABLE: dict[str, Any] = {
    "project": {"name": "x", "dependencies": ["a"]},
    "build-system": {"requires": ["b"]},
    "tool": {},
}
STAMP = Stamp("python 3.11 /here", "0" * 64, ("base", "tests"))


class Log:
    """A stream that keeps what was written."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.text = ""
        self._terminal = terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""

    def isatty(self) -> bool:
        return self._terminal


def screen(log: Log) -> Screen:
    return Screen(log)  # type: ignore[arg-type]  # a Log has all that a Screen uses


# --- stamps ---------------------------------------------------------------------------------


def test_a_stamp_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_stamp(tmp_path, STAMP)
    assert read_stamp(tmp_path) == STAMP


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"made_by": 1, "project": 2, "done": 3}', "null"])
def test_a_stamp_that_cannot_be_read_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / environment.STAMP).write_text(text, encoding="utf-8")
    assert read_stamp(tmp_path) is None


@pytest.mark.parametrize(
    ("table", "python", "root"),
    [
        pytest.param({**TABLE, "project": {"name": "x", "dependencies": ["a", "c"]}}, "3.11", "/r", id="a dependency"),
        pytest.param({**TABLE, "build-system": {"requires": ["c"]}}, "3.11", "/r", id="the build tool"),
        pytest.param(TABLE, "3.12", "/r", id="another Python"),
        pytest.param(TABLE, "3.11", "/moved", id="the folder moved"),
    ],
)
def test_what_decides_the_installation_changes_the_stamp(table: dict[str, Any], python: str, root: str) -> None:
    assert fresh_stamp(table, python=python, root=Path(root)) != fresh_stamp(TABLE, python="3.11", root=Path("/r"))


def test_settings_of_tools_do_not_change_the_stamp() -> None:
    changed = {**TABLE, "tool": {"ruff": {"line-length": 79}}}
    assert fresh_stamp(changed, python="3.11", root=Path("/r")) == fresh_stamp(TABLE, python="3.11", root=Path("/r"))


# --- prepare --------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `prepare` did; making an environment only makes its Python, and pip does nothing."""
    calls: list[str] = []

    def make(folder: Path) -> None:
        calls.append("make")
        python_of(folder).parent.mkdir(parents=True, exist_ok=True)
        python_of(folder).touch()
        (folder / environment.STAMP).unlink(missing_ok=True)

    def pip(_python: Path, install: Install, _screen: Screen) -> None:
        calls.append(install.name)
        if install.name == "broken":
            raise SetupError("no")

    monkeypatch.setattr(environment, "_make", make)
    monkeypatch.setattr(environment, "_pip", pip)
    return calls


def installs(*names: str) -> list[Install]:
    return [Install(name, (name,)) for name in names]


def test_a_second_run_starts_nothing(tmp_path: Path, calls: list[str]) -> None:
    assert prepare(tmp_path, installs("a", "b"), screen(Log())) == python_of(tmp_path)
    assert calls == ["make", "a", "b"]
    calls.clear()
    prepare(tmp_path, installs("a", "b"), screen(Log()))
    prepare(tmp_path, installs("b"), screen(Log()))
    assert calls == []


def test_another_command_installs_only_what_is_missing(tmp_path: Path, calls: list[str]) -> None:
    prepare(tmp_path, installs("a"), screen(Log()))
    calls.clear()
    prepare(tmp_path, installs("a", "b"), screen(Log()))
    assert calls == ["b"]


def test_an_interrupted_set_up_goes_on_where_it_was(tmp_path: Path, calls: list[str]) -> None:
    with pytest.raises(SetupError):
        prepare(tmp_path, installs("a", "broken", "b"), screen(Log()))
    calls.clear()
    prepare(tmp_path, installs("a", "b"), screen(Log()))
    assert calls == ["b"]


def test_changed_dependencies_are_installed_into_the_same_environment(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, installs("a"), screen(Log()))
    calls.clear()
    monkeypatch.setattr(environment, "project_table", lambda: TABLE)
    prepare(tmp_path, installs("a"), screen(Log()))
    assert calls == ["a"]


@pytest.mark.parametrize("damage", ["python", "stamp"])
def test_a_damaged_environment_is_made_again(tmp_path: Path, calls: list[str], damage: str) -> None:
    prepare(tmp_path, installs("a"), screen(Log()))
    calls.clear()
    (python_of(tmp_path) if damage == "python" else tmp_path / environment.STAMP).unlink()
    prepare(tmp_path, installs("a"), screen(Log()))
    assert calls == ["make", "a"]


def test_an_environment_of_another_python_is_made_again(tmp_path: Path, calls: list[str]) -> None:
    prepare(tmp_path, installs("a"), screen(Log()))
    found = read_stamp(tmp_path)
    assert found is not None
    write_stamp(tmp_path, Stamp("another Python", found.project, found.done))
    calls.clear()
    prepare(tmp_path, installs("a"), screen(Log()))
    assert calls == ["make", "a"]


def test_a_python_without_ensurepip_nor_pip_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "venv" else None)
    with pytest.raises(SetupError, match="apt install python3-venv"):
        environment._make(Path("unused"))


def test_a_python_without_ensurepip_uses_its_own_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ensurepip" else object())
    monkeypatch.setattr(environment, "_run", lambda command: commands.append(list(command)))
    environment._make(tmp_path)
    assert "--without-pip" in commands[0]
    assert commands[1][-5:] == ["--python", str(python_of(tmp_path)), "install", "--quiet", "pip"]


# --- pip's talk -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Collecting numpy>=2.0", "looking at numpy>=2.0"),
        ("Obtaining file:///kit", "looking at kit"),
        ("  Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (190.2 MB)", "downloading torch-2.13.0 (190.2 MB)"),
        ("  Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl.metadata (28 kB)", ""),
        ("Downloading https://x/y/click-8.1-py3-none-any.whl (97 kB)", "downloading click-8.1 (97 kB)"),
        ("  Building editable for edgekit (pyproject.toml): started", "building edgekit"),
        ("Building wheel for edgekit", "building edgekit"),
        ("Installing collected packages: a, b, c", "unpacking 3 packages"),
        ("Installing build dependencies: started", ""),
        ("Requirement already satisfied: click", ""),
        ("Downloading", ""),
        ("", ""),
    ],
)
def test_a_line_of_pip_becomes_a_few_words(line: str, step: str) -> None:
    assert step_in(line) == step


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: Retrying ... after connection broken by 'NewConnectionError(...)': /simple/numpy/",
        "Failed to establish: [Errno -3] Temporary failure in name resolution",
        "ProxyError('Cannot connect to proxy.')",
    ],
)
def test_no_network_is_one_sentence(line: str) -> None:
    text = explain("numpy", [line, "ERROR: No matching distribution found for numpy"])
    assert "cannot be reached" in text
    assert "\n" not in text


def test_a_full_disk_is_one_sentence() -> None:
    assert "disk is full" in explain("torch", ["ERROR: [Errno 28] No space left on device"])


def test_another_failure_shows_the_last_lines_only() -> None:
    text = explain("numpy", [f"line {i}" for i in range(100)])
    assert "line 99" in text
    assert f"line {100 - environment.LAST_LINES}" in text
    assert f"line {99 - environment.LAST_LINES}" not in text


def test_pip_output_is_followed_to_its_end() -> None:
    log = Log(terminal=True)
    program = "print('Collecting a'); print('noise'); print('Installing collected packages: a, b')"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        lines = environment._follow(process, "kit", screen(log), 0.0)
    assert lines == ["Collecting a", "noise", "Installing collected packages: a, b"]
    assert "installing kit: looking at a" in log.text
    assert "installing kit: unpacking 2 packages" in log.text


def test_a_failing_pip_is_a_set_up_error() -> None:
    with pytest.raises(SetupError, match="could not install nothing"):
        environment._pip(Path(sys.executable), Install("nothing", ("--no-such-option",)), screen(Log()))


# --- the screen -----------------------------------------------------------------------------


def test_a_live_line_shows_on_a_terminal_only() -> None:
    terminal, log = Log(terminal=True), Log()
    for stream in (terminal, log):
        shown = screen(stream)
        shown.live("working")
        shown.log("for the log")
        shown.line("done")
    assert terminal.text == "\r\x1b[Kworking\r\x1b[Kdone\n"
    assert log.text == "for the log\ndone\n"

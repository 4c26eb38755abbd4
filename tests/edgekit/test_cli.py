"""The program around the verbs: what a person reads, what a script gets, and the exit code."""

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

import click
import pytest

from edgekit import __version__, cli
from edgekit.errors import ContextOverflow, CorruptBundle, EdgekitError, MissingExtra, SystemRefused

type_of_main = Callable[..., int]


@click.command()
@click.option("--json", "as_json", is_flag=True)
@click.argument("what", default="nothing")
def speak(*, as_json: bool, what: str) -> None:
    """Says or raises what it is told to."""
    outcomes: dict[str, BaseException] = {
        "damage": CorruptBundle("folder", "a byte changed"),
        "overflow": ContextOverflow(9, 8),
        "bug": ZeroDivisionError("a bug of ours"),
        "interrupt": KeyboardInterrupt(),
        "full": OSError(errno.ENOSPC, "No space left on device", "packs/ab"),
        "cut": ConnectionResetError("peer is gone"),
        "closed": BrokenPipeError(),
        "module": ModuleNotFoundError("No module named 'onnx'", name="onnx"),
    }
    if what in outcomes:
        raise outcomes[what]
    if as_json:
        cli.print_json({"what": what})
    else:
        click.echo(what)


@click.command()
def answer() -> int:
    """Return an exit code."""
    return 7


class Entry:
    """An entry point of the made-up verbs."""

    def __init__(self, name: str, command: click.Command) -> None:
        self.name = name
        self._command = command

    def load(self) -> click.Command:
        return self._command


@pytest.fixture(autouse=True)
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    verbs = [Entry("speak", speak), Entry("export", speak), Entry("answer", answer)]
    monkeypatch.setattr(cli, "_entry_points", lambda: verbs)


@pytest.fixture
def run() -> type_of_main:
    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(arguments))
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return call


def test_a_verb_that_ends_well_exits_0(run: type_of_main, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("speak", "hello") == 0
    assert capsys.readouterr().out == "hello\n"


def test_a_verb_may_choose_its_exit_code(run: type_of_main) -> None:
    assert run("answer") == 7


@pytest.mark.parametrize(("what", "error"), [("damage", CorruptBundle), ("overflow", ContextOverflow)])
def test_an_error_is_one_line_and_its_exit_code(
    run: type_of_main, capsys: pytest.CaptureFixture[str], what: str, error: type[EdgekitError]
) -> None:
    assert run("speak", what) == error.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    first, *rest = err.splitlines()
    assert first.startswith("error: ")
    assert rest == ([f"hint:  {error.hint}"] if error.hint else [])


def test_an_error_is_json_on_standard_output_when_asked_for(
    run: type_of_main, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("speak", "damage", "--json") == CorruptBundle.exit_code
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "error": {
            "type": "CorruptBundle",
            "message": "The bundle folder is damaged: a byte changed",
            "hint": CorruptBundle.hint,
        }
    }
    assert err.startswith("error: The bundle folder is damaged")


@pytest.mark.parametrize("arguments", [("speak", "damage", "--debug"), ("--debug", "speak", "damage")])
def test_debug_anywhere_shows_the_traceback(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CorruptBundle):
        cli.main(list(arguments))


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(["speak", "bug"])


@pytest.mark.parametrize(("what", "said"), [("full", "No space left on device: packs/ab"), ("cut", "peer is gone")])
def test_what_the_system_refuses_is_one_line_too(
    run: type_of_main, capsys: pytest.CaptureFixture[str], what: str, said: str
) -> None:
    assert run("speak", what) == SystemRefused.exit_code
    assert capsys.readouterr().err.splitlines() == [
        f"error: The system refuses: {said}",
        f"hint:  {SystemRefused.hint}",
    ]
    with pytest.raises(OSError, match=said.partition(":")[0]):
        cli.main(["speak", what, "--debug"])


def test_who_wants_no_more_output_gets_no_more(run: type_of_main, capfd: pytest.CaptureFixture[str]) -> None:
    kept = os.dup(1)
    try:
        assert run("speak", "closed") == 1
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert capfd.readouterr().err == ""


def test_ctrl_c_exits_130(run: type_of_main, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("speak", "interrupt") == 130
    assert "Stopped." in capsys.readouterr().err


@pytest.mark.parametrize("what", ["damage", "interrupt"])
def test_on_a_terminal_a_bar_that_was_drawn_goes_and_its_cursor_comes_back(
    run: type_of_main, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run("speak", what)
    assert "\x1b" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run("speak", what)
    assert "\r\x1b[K\x1b[?25h" in capsys.readouterr().err


def test_a_missing_extra_is_named(run: type_of_main, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "module") == MissingExtra.exit_code
    assert 'pip install "edgekit[export]"' in capsys.readouterr().err


def test_a_module_missing_from_the_base_install_is_a_bug_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError):
        cli.main(["speak", "module"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("spaek",), "Did you mean 'speak'?"),
        (("xyz",), "No such command"),
        (("speak", "--nothing"), "No such option"),
        (("speak", "a", "b"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    run: type_of_main, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err


def test_version_and_help_exit_0(run: type_of_main, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert __version__ in capsys.readouterr().out
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert "Exit codes:" in text
    assert text.index("answer") < text.index("speak")


def test_help_covers_every_exit_code_of_the_error_tree(run: type_of_main, capsys: pytest.CaptureFixture[str]) -> None:
    run("--help")
    text = capsys.readouterr().out
    assert all(group in text for group in ("10-18", "20-26", "30-35", "40-49", "50-54", "130"))


def test_one_broken_verb_does_not_break_the_others(
    run: type_of_main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Entry):
        def load(self) -> NoReturn:
            raise AssertionError("must not be loaded")

    monkeypatch.setattr(cli, "_entry_points", lambda: [Broken("zzz", speak), Entry("speak", speak)])
    assert run("speak", "hello") == 0
    assert capsys.readouterr().out == "hello\n"


def test_json_keeps_letters_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_json({"text": "é"})
    assert capsys.readouterr().out == '{\n  "text": "é"\n}\n'


def test_arguments_come_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["edgekit", "answer"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 7


def test_every_verb_that_is_installed_has_a_unique_name() -> None:
    names = [entry.name for entry in importlib.metadata.entry_points(group="edgekit.verbs")]
    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("words", "warned"), [([], "False"), (["--debug"], "True")], ids=["plain", "debug"])
def test_a_request_that_waits_for_a_thread_is_no_warning(words: list[str], warned: str) -> None:
    code = (
        "import contextlib, logging\n"
        "from edgekit.cli import program\n"
        "from edgekit.errors import EdgekitError\n"
        "with contextlib.suppress(EdgekitError):\n"
        f"    program([*{words!r}, 'inspect', 'nowhere'], standalone_mode=False)\n"
        "print(logging.getLogger('waitress.queue').isEnabledFor(logging.WARNING))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == warned

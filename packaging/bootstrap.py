#!/usr/bin/env python3
"""The README's two commands: `demo` and `test`, from a bare Python with nothing but pip.

Reads as: check Python, prepare an environment, hand over to what runs inside it. The rooms are
`environment` (virtual environments and pip), `programs` (what pip has not), `checks` (all that CI runs) and `demo`.
"""

import sys

if sys.version_info < (3, 11):  # before anything that an older Python could not read
    sys.exit("edgekit needs Python 3.11 or newer, and this is {}.{}.".format(*sys.version_info[:2]))

import argparse
import os
import subprocess

import checks
import programs
from environment import ROOT, Install, SetupError, prepare, project_table
from screen import Screen

HELP = """Sets edgekit up in this folder and runs it. Needs Python 3.11 or newer with pip, and the network once.

examples:
  python3 packaging/bootstrap.py demo                 export a real model, serve it, ask it a question
  python3 packaging/bootstrap.py demo --once          the same, and stop after the answer
  python3 packaging/bootstrap.py demo --update        publish versions to a running agent: good, bad and forged
  python3 packaging/bootstrap.py test                 every check that CI runs
  python3 packaging/bootstrap.py test -- -k manifest  only these tests
"""


def main(arguments: list[str]) -> int:
    """Run one command; its exit code. A failed set-up is one sentence and exit code 1."""
    options = _parser().parse_args(arguments)
    screen = Screen(sys.stderr)
    try:
        return _demo(options, screen) if options.command == "demo" else _test(options, screen)
    except SetupError as error:
        screen.line(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        screen.line("Stopped.")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bootstrap.py", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="export a small model to INT4, serve it, ask it a question")
    demo.add_argument("--once", action="store_true", help="stop after the answer instead of serving until Ctrl-C")
    demo.add_argument("--update", action="store_true", help="the second act: signed updates, good, bad and forged")
    demo.add_argument("--json", action="store_true", help="one JSON object on standard output, progress on stderr")
    demo.add_argument("--port", type=int, metavar="N", help="the agent's port (default: 8080, or a free one)")
    demo.add_argument("--model", metavar="PATH", help="a .gguf file or Hugging Face folder instead of the demo model")
    test = commands.add_parser("test", help="run every check that CI runs")
    test.add_argument("--only", action="append", choices=checks.NAMES, help="run this check only (may be repeated)")
    test.add_argument("pytest", nargs="*", metavar="-- PYTEST", help="arguments for pytest; runs only `tests`")
    return parser


def _demo(options: argparse.Namespace, screen: Screen) -> int:
    """Everything but torch; then demo.py takes this process's place, so that signals reach it directly."""
    python = prepare(ROOT / ".venv", _light_installs(), screen)
    command = [str(python), str(ROOT / "packaging" / "demo.py")]
    command += [flag for flag in ("--once", "--json", "--update") if getattr(options, flag[2:])]
    if options.port is not None:
        command += ["--port", str(options.port)]
    if options.model is not None:
        command += ["--model", os.path.abspath(options.model)]  # noqa: PTH100 - without resolving links
    if os.name == "posix":
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    return subprocess.call(command)


def _test(options: argparse.Namespace, screen: Screen) -> int:
    """The environments, a browser and servers, then every check."""
    names = tuple(options.only or checks.NAMES)
    if options.pytest:
        names = ("tests",)
    python = prepare(ROOT / ".venv", [*_full_installs(), *_light_installs()], screen)
    device = prepare(ROOT / ".venv-device", _device_installs(), screen) if "device" in names else python
    clients = prepare(ROOT / ".venv-clients", _client_installs(), screen) if "clients" in names else python
    if "tests" in names:
        programs.ensure(screen)
    pythons = checks.Pythons(python, device, clients)
    return checks.run(checks.select(names, pythons, pytest_arguments=options.pytest))


def _light_installs() -> list[Install]:
    """The base and the light export path, and the demo's model without the compiler run it would ask for."""
    extras = project_table()["project"]["optional-dependencies"]
    return [
        Install("edgekit[export]", ("--editable", f"{ROOT}[export]")),
        Install("demo model", ("--no-deps", *extras["demo"])),
    ]


def _full_installs() -> list[Install]:
    """Torch first (pyproject.toml says why), and what builds a wheel without asking the network again."""
    table = project_table()
    reference = table["project"]["optional-dependencies"]["reference"]
    return [
        Install("torch", tuple(line for line in reference if line.startswith("torch=="))),
        Install("edgekit[all checks]", ("--editable", f"{ROOT}[export,reference,dev,bench]")),
        Install("encoder", ("--no-deps", *table["project"]["optional-dependencies"]["encoder"])),
        Install("build tools", tuple(table["build-system"]["requires"])),
    ]


def _device_installs() -> list[Install]:
    """What a device gets, and what runs its tests; nothing else."""
    wanted = ("pytest>", "pytest-randomly>", "hypothesis>")
    tools = [line for line in project_table()["project"]["optional-dependencies"]["dev"] if line.startswith(wanted)]
    return [Install("edgekit", ("--editable", str(ROOT))), Install("test tools", tuple(tools))]


def _client_installs() -> list[Install]:
    """Client libraries as their users have them: in an environment of their own, since some hold others back."""
    extras = project_table()["project"]["optional-dependencies"]
    return [Install("client libraries", tuple(extras["clients"])), Install("litellm", tuple(extras["litellm"]))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Virtual environments that hold what a command needs, and are left alone when they already do.

A stamp inside the environment says what was installed for which project file, Python and place;
as long as it is true, pip is not even started.
"""

import hashlib
import importlib.util
import json
import queue
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from screen import Screen

ROOT = Path(__file__).resolve().parents[1]
STAMP = "edgekit-stamp.json"
LAST_LINES = 15
_OFFLINE = re.compile(
    r"NewConnectionError|NameResolutionError|name resolution|getaddrinfo|Network is unreachable|ConnectTimeout"
    r"|ProxyError|No route to host|Connection refused|Read timed out",
    re.IGNORECASE,
)


class SetupError(Exception):
    """One sentence for the person who ran the command."""


@dataclass(frozen=True)
class Install:
    """One call of pip; `name` is what the person sees and what the stamp remembers."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Stamp:
    """What an environment was made by, for which project file, and which installs are `done`."""

    made_by: str
    project: str
    done: tuple[str, ...] = ()


def project_table() -> dict[str, Any]:
    """`pyproject.toml`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def fresh_stamp(table: dict[str, Any], *, python: str, root: Path) -> Stamp:
    """The stamp of an empty environment: only what decides the installation counts, not the tools' settings."""
    facts = json.dumps([table["project"], table["build-system"]], sort_keys=True)
    return Stamp(f"{python} {root}", hashlib.sha256(facts.encode()).hexdigest())


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp in `folder`, or None if there is none that can be read."""
    try:
        facts = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return Stamp(str(facts["made_by"]), str(facts["project"]), tuple(facts["done"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Written after each install, so that an interrupted set-up goes on where it was."""
    text = json.dumps({"made_by": stamp.made_by, "project": stamp.project, "done": stamp.done})
    (folder / STAMP).write_text(text, encoding="utf-8")


def python_of(folder: Path) -> Path:
    """The environment's interpreter."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def prepare(folder: Path, installs: Sequence[Install], screen: Screen) -> Path:
    """The Python of an environment in `folder` that has all `installs`.

    Raises SetupError if it cannot be made: no venv module, no network, no space, a package that does not install.
    """
    wanted = fresh_stamp(project_table(), python=sys.version, root=ROOT)
    found = read_stamp(folder)
    python = python_of(folder)
    if found is None or found.made_by != wanted.made_by or not python.exists():
        screen.live(f"making {folder.name}")
        _make(folder)
        found = wanted
    if found.project != wanted.project:
        found = wanted
    for install in installs:
        if install.name not in found.done:
            _pip(python, install, screen)
            found = Stamp(found.made_by, found.project, (*found.done, install.name))
            write_stamp(folder, found)
    return python


def _make(folder: Path) -> None:
    """An empty environment with pip, also on a Debian that keeps ensurepip in a package of its own."""
    command = [sys.executable, "-m", "venv", "--clear", str(folder)]
    if importlib.util.find_spec("ensurepip") is not None:
        _run(command)
        return
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("pip") is None:
        raise SetupError("this Python cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv")
    _run([*command, "--without-pip"])
    _run([sys.executable, "-m", "pip", "--python", str(python_of(folder)), "install", "--quiet", "pip"])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SetupError(explain("a virtual environment", done.stdout.splitlines()))


def _pip(python: Path, install: Install, screen: Screen) -> None:
    """One pip call with its output condensed. Raises SetupError with pip's last lines."""
    started = time.monotonic()
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    screen.log(f"installing {install.name}")
    with subprocess.Popen(
        [*command, *install.arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        lines = _follow(process, install.name, screen, started)
    if process.returncode:
        raise SetupError(explain(install.name, lines))
    screen.line(f"installed {install.name} in {time.monotonic() - started:.0f} s")


def _follow(process: subprocess.Popen[str], name: str, screen: Screen, started: float) -> list[str]:
    """All lines that pip writes, while the screen shows what it is at and for how long."""
    arriving: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout or ():
            arriving.put(line.rstrip())
        arriving.put(None)

    threading.Thread(target=read, daemon=True).start()
    lines: list[str] = []
    at = "asking the package index"
    while True:
        try:
            line = arriving.get(timeout=0.5)  # so that the seconds go on while pip is silent
        except queue.Empty:
            line = ""
        if line is None:
            return lines
        if line:
            lines.append(line)
        step = step_in(line)
        if step:
            at = step
        if step.startswith("downloading") and step.endswith(("MB)", "GB)")):
            screen.log(f"  {step}")
        screen.live(f"installing {name}: {at} ({time.monotonic() - started:.0f} s)")


def step_in(line: str) -> str:
    """What a line of pip's output says that it is doing, in few words; empty for other lines.

    Pure. "Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (190 MB)" is "downloading torch-2.13.0 (190 MB)".
    """
    words = line.strip().split()
    if len(words) < 2:  # a package's name is needed
        return ""
    match words[0]:
        case "Collecting" | "Obtaining":
            return f"looking at {words[1].rsplit('/', 1)[-1]}"
        case "Downloading" if not words[1].endswith(".metadata"):
            file = "-".join(words[1].rsplit("/", 1)[-1].split("-")[:2])
            size = line[line.rfind("(") :] if line.endswith(")") else ""
            return f"downloading {file} {size}".strip()
        case "Building":
            return f"building {words[words.index('for') + 1]}" if "for" in words[:-1] else ""
        case "Installing":
            return f"unpacking {line.count(',') + 1} packages" if "collected" in words else ""
        case _:
            return ""


def explain(what: str, output: Sequence[str]) -> str:
    """A sentence for a failed set-up: no network, or the last lines of what pip said."""
    if any(_OFFLINE.search(line) for line in output):
        return (
            f"{what} cannot be installed because the package index cannot be reached. "
            "Connect this machine to the network (or set pip's proxy or index) and run the same command again."
        )
    if any("No space left" in line for line in output):
        return f"{what} cannot be installed because the disk is full. Free some space and run the same command again."
    tail = "\n".join(f"  {line}" for line in output[-LAST_LINES:])
    return f"pip could not install {what}. It said:\n{tail}"

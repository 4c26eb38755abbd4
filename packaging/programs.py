"""Programs that tests start and that pip cannot install: a browser, web servers, a registry, a false clock."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from environment import SetupError, explain
from screen import Screen


@dataclass(frozen=True)
class Program:
    """What any of `names` starts, the package of Debian that has it, and the marker of tests that need it."""

    label: str
    names: tuple[str, ...]
    package: str
    marker: str


CHROMIUM = Program(
    "Chromium", ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"), "chromium", "browser"
)
NGINX = Program("nginx", ("nginx",), "nginx-light", "programs")
REGISTRY = Program("an OCI registry", ("docker-registry",), "docker-registry", "programs")
FAKETIME = Program("faketime", ("faketime",), "faketime", "programs")
PROGRAMS = (CHROMIUM, NGINX, REGISTRY, FAKETIME)

POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian asks it whether a package that is being installed may start its service."""

_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
"""Where servers are, and which are not on everybody's PATH."""


def find(program: Program) -> str | None:
    """Path of a program, or None."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    return next(filter(None, (shutil.which(name, path=path) for name in program.names)), None)


def ensure(screen: Screen) -> None:
    """Install what is missing where that needs no question. Raises SetupError where a person has to."""
    missing = [program for program in PROGRAMS if not find(program)]
    if not missing:
        return
    packages = [program.package for program in missing]
    apt = shutil.which("apt-get")
    if not apt or os.name != "posix" or os.geteuid() != 0:
        without = " and ".join(f"not {marker}" for marker in dict.fromkeys(program.marker for program in missing))
        raise SetupError(
            f"some tests start {', '.join(program.label for program in missing)}, and this machine has none. "
            f"On Debian: sudo apt-get install {' '.join(packages)}. Or leave these tests out: test -- -m '{without}'"
        )
    with _no_services():
        for what, arguments in (("package list", ["update"]), (" ".join(packages), ["install", "-y", *packages])):
            screen.line(f"installing programs for the tests: {what}")
            _apt([apt, "-q", *arguments])


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Servers that are installed here are for the tests to start, not for the machine."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _apt(command: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SetupError(explain("a program for the tests", done.stdout.splitlines()))

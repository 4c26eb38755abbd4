"""The browser that tests the agent's web page."""

import os
import shutil
import subprocess

from environment import SetupError, explain
from screen import Screen

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def ensure(screen: Screen) -> None:
    """Install Debian's Chromium where that needs no question. Raises SetupError where a person has to."""
    if find():
        return
    apt = shutil.which("apt-get")
    if not apt or os.name != "posix" or os.geteuid() != 0:
        raise SetupError(
            "the tests of the web page need Chromium or Chrome on the PATH, and there is none. "
            "On Debian: sudo apt-get install chromium. Or leave these tests out: test -- -m 'not browser'"
        )
    for what, arguments in (("package list", ["update"]), ("chromium", ["install", "-y", "chromium"])):
        screen.line(f"installing Chromium for the tests of the web page: {what}")
        _apt([apt, "-q", *arguments])


def _apt(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SetupError(explain("Chromium", done.stdout.splitlines()))

"""The processes of a device: the agent, and `edgekit sync` beside it. Real ones, so that they can really be killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psutil

from tests.imports import ROOT

STOP_S = 60.0
SCRUB_WAIT_S, SCRUB_BYTES_PER_S = 1.0, 1 << 30
# The agent as `edgekit serve` starts it, but that its scrub looks every second, and not once a minute and slowly.
_AGENT = f"""
from device_agent.releases.scrub import Scrub
from edgekit.cli import main
Scrub.__init__.__kwdefaults__.update(wait_s={SCRUB_WAIT_S}, bytes_per_s={SCRUB_BYTES_PER_S})
main()
"""
# One slot and one thread: each answer is computed alone, and its text is known to the letter.
_SETTINGS: Mapping[str, str] = {
    "EDGEKIT_ENGINE_THREADS": "1",
    "EDGEKIT_ENGINE_SLOTS": "1",
    "EDGEKIT_ENGINE_DRAFT": "off",
    "EDGEKIT_ENGINE_PREFIX_BYTES": "0",
    "EDGEKIT_ENGINE_PREFILL": "int4",
    "EDGEKIT_SYNC_INTERVAL_S": "0",
    "EDGEKIT_SYNC_RESERVE_BYTES": "0",
    "OMP_NUM_THREADS": "1",
}


def environment(home: Path) -> dict[str, str]:
    """Of a device's processes: what they put into the system's folder for temporary files is seen."""
    temporary = home.with_name(f"{home.name}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    paths = {"EDGEKIT_HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    return {**os.environ, **_SETTINGS, **paths}


@dataclass
class Agent:
    """A running `edgekit serve`."""

    process: "subprocess.Popen[str]"
    port: int

    @classmethod
    def start(cls, home: Path, *arguments: str) -> Self:
        """Wait until it is ready. Raises RuntimeError if it ends before."""
        home.mkdir(parents=True, exist_ok=True)
        with home.with_name(f"{home.name}.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _AGENT, "serve", *arguments, "--port", "0", "--json"],
                cwd=ROOT,
                env=environment(home),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the agent ended with {process.wait()} before it was ready")
            text += line
        return cls(process, int(urlsplit(json.loads(text)["url"]).port or 0))

    def kill(self) -> None:
        """Without any warning."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """As an operator ends it; the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_S)

    def close(self) -> None:
        """For good."""
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Sync:
    """`edgekit sync --once` beside whatever else runs."""

    def __init__(self, home: Path, *arguments: str, before: Sequence[str] = ()) -> None:
        with home.with_name(f"{home.name}.log").open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "edgekit", "sync", "--once", "--json", *arguments],
                cwd=ROOT,
                env=environment(home),
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so long."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Without any warning."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)


def enrol(home: Path, provisioning: Path) -> None:
    """Tell a device whom to trust."""
    subprocess.run(
        [sys.executable, "-m", "edgekit", "enrol", str(provisioning), "--json"],
        cwd=ROOT,
        env=environment(home),
        check=True,
        stdout=subprocess.DEVNULL,
    )


def trial_of(pid: int) -> psutil.Process | None:
    """The process that a release on trial runs in, if this one has started one."""
    try:
        children = psutil.Process(pid).children()
        return next((child for child in children if "device_agent.activation.trial" in child.cmdline()), None)
    except psutil.Error:
        return None

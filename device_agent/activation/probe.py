"""Probe: a release is started in a process of its own, and watched until it has reported or its time is over."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import device_agent
from device_agent.activation.health import MOST_REPORT_BYTES, Ended, judged
from device_agent.activation.records import Verdict
from device_agent.releases.records import Installed
from device_agent.sensors import available_memory_bytes
from device_agent.shelf.room import reserved_bytes
from edgekit.adapter import fingerprint, open_adapter
from edgekit.bundle import open_bundle, read_manifest
from edgekit.errors import BundleError, Refused, ServerError
from edgekit.release.manifest import HealthFloor

PROGRAM = (sys.executable, "-P", "-m", "device_agent.activation.trial")

_PIECE_BYTES = 1 << 12
_LAST_WORDS_BYTES = 1 << 11
_READERS_S = 5.0


class ChildProbe:
    """Implements `Probe`.

    `bases` finds the folder of the model that an adapter stands beside, by its name. `make_room` lets go of memory that
    serves nobody at the moment, for a machine that has none left beside what serves; it is asked only there.
    """

    def __init__(
        self,
        bases: Callable[[str], Path | None],
        *,
        make_room: Callable[[], object] = lambda: None,
        available: Callable[[], int] = available_memory_bytes,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._bases = bases
        self._make_room = make_room
        self._available = available
        self._program = tuple(program)

    def __call__(self, installed: Installed, floor: HealthFloor) -> Verdict:
        """Start it and wait, up to the floor's `probe_s`.

        Raises Refused if there is no memory for it now or its base is not there, ServerError if no process can be
        started at all.
        """
        try:
            folders = self._folders(installed)
            self._check_memory(folders[0], installed)
        except BundleError as problem:
            return Verdict(ok=False, reason=str(problem))
        ended = run((*self._program, *map(str, folders)), seconds=floor.probe_s)
        return judged(ended, floor)

    def _folders(self, installed: Installed) -> tuple[Path, ...]:
        """The bundle, and the adapter if it is one that is on trial. Raises Refused or BundleError."""
        name = installed.release.base
        if name is None:
            return (installed.folder,)
        base = self._bases(name)
        if base is None:
            raise Refused(f"{installed.ref.id} stands beside {name}, which is not there yet")
        made_for = open_adapter(installed.folder).manifest.base
        if fingerprint(open_bundle(base)) != made_for.fingerprint:
            said = f"{installed.ref.id} was made for {made_for.name} {made_for.version}, which is not what is active"
            raise Refused(said)
        return base, installed.folder

    def _check_memory(self, folder: Path, installed: Installed) -> None:
        """The one that is active stays in memory if there is room for both. Raises Refused."""
        needed = reserved_bytes(read_manifest(folder), 1)
        if self._available() < needed:
            self._make_room()
        if (free := self._available()) < needed:
            said = f"{needed / 1e6:,.0f} MB of memory for its trial, and {free / 1e6:,.0f} are free"
            raise Refused(f"{installed.ref.id} needs {said}")


def run(command: Sequence[str], *, seconds: float) -> Ended:
    """Run a program that may do anything: as long as it may, read as much as is of use, and leave nothing behind.

    Raises ServerError if it cannot be started.
    """
    root = str(Path(device_agent.__file__).parents[1])
    above = os.environ.get("PYTHONPATH")
    path = root if not above else f"{root}{os.pathsep}{above}"  # the same code as ours, wherever that lies
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program
            list(command),
            stdin=subprocess.PIPE,  # which ends when we do, and it with it
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
    except OSError as error:
        raise ServerError(f"a release cannot be tried: {error}") from error
    said, words = _Reader(process.stdout, first=MOST_REPORT_BYTES), _Reader(process.stderr, last=_LAST_WORDS_BYTES)
    try:
        code: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _end(process)
    lines = words.read().decode(errors="replace").strip().splitlines()
    return Ended(code, said.read(), lines[-1] if lines else "")


class _Reader:
    """Reads a pipe to its end on a thread of its own, and keeps its `first` or its `last` bytes."""

    def __init__(self, pipe: IO[bytes] | None, *, first: int = 0, last: int = 0) -> None:
        self._first = first
        self._last = last
        self._kept = b""
        self._pipe = pipe
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def read(self) -> bytes:
        """What it kept. A child of the child may hold the pipe open: nobody waits for that."""
        self._thread.join(_READERS_S)
        return self._kept

    def _work(self) -> None:
        if self._pipe is None:
            return
        with contextlib.suppress(OSError, ValueError), self._pipe as pipe:
            while piece := os.read(pipe.fileno(), _PIECE_BYTES):
                kept = self._kept + piece
                self._kept = kept[: self._first] if self._first else kept[-self._last :]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill it if it runs, children included, and wait for it. Afterwards its number may be anybody's."""
    if process.returncode is None:
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()

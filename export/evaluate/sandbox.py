"""Runs programs that a model wrote. `confine.py` says what such a program may still do."""

import contextlib
import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use."""

    cpu_s: int = 10
    wall_s: float = 20.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20


DEFAULT = Limits()


def check_platform() -> None:
    """Raises UsageError where programs cannot be held to limits."""
    if importlib.util.find_spec("resource") is None:
        raise UsageError("--run-code needs Linux or macOS: this system cannot hold a program to limits.")


def passes(program: str, tests: str, limits: Limits = DEFAULT) -> bool:
    """Whether `tests` run behind `program` without an error, to their end and within the limits."""
    done = secrets.token_hex(16)  # printed last: a program that leaves early has not passed
    with tempfile.TemporaryDirectory(prefix="edgekit-program-") as folder:
        here = Path(folder, "work")
        here.mkdir()
        file, output = Path(folder, "program.py"), Path(folder, "output")
        file.write_text(f"{program}\n{tests}\nprint({done!r})\n", encoding="utf-8", errors="replace")
        with output.open("wb") as stream:  # a file, because its size is limited; a pipe would fill our memory
            _run(file, here, stream.fileno(), limits)
        return output.read_bytes().rstrip().endswith(done.encode())


def _run(file: Path, here: Path, output: int, limits: Limits) -> None:
    confine = Path(__file__).with_name("confine.py")
    numbers = (limits.cpu_s, limits.memory_bytes, limits.file_bytes)
    process = subprocess.Popen(  # noqa: S603 - our own launcher; what it starts is why it exists
        [sys.executable, "-I", "-B", str(confine), str(file), *map(str, numbers)],
        cwd=here,
        env={"PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limits.wall_s)
    finally:
        # The whole group: a program that forked must not outlive its test.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

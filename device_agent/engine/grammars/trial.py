"""Grammars are tried in another process before this one compiles them.

llguidance bounds what it does, but not everything: on two cores of Zen 3, a JSON schema of 60 bytes with a large
`multipleOf` takes minutes to compile, so do `allOf` with a few patterns, and a few Lark rules can make it loop for
ever. A thread that computes cannot be ended; a process can. It is started for the first grammar (0.2 s, 30 MB), tries
most grammars in a few milliseconds, and ends when there were none for a minute.
"""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_agent.engine.grammars import child as grammar_child
from edgekit.errors import Overloaded, ServerError

log = logging.getLogger(__name__)

TRIAL_S = 4.0
"""Of wall-clock time; a schema of 900 number ranges takes 0.4 s, one of 3,000 properties 1 s."""
START_S = 30.0
"""For the other process to be ready: a device that is busy and has read none of its files yet is slow."""
PATIENCE_S = 10.0
"""How long a request waits while others' grammars are tried."""


class Trials:
    """Tries grammars for a vocabulary, one at a time. Any thread may call; `close` ends the other process.

    `special` are names of special tokens by id, `eos` the ids that end an answer, the first of them the usual one.
    """

    def __init__(self, *, vocab: int, eos: Sequence[int], special: Mapping[int, str], trial_s: float = TRIAL_S) -> None:
        self._known = {"vocab": vocab, "eos": list(eos), "special": dict(special)}
        self._trial_s = trial_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._asked_at = 0.0

    def problem(self, grammar: str) -> str:
        """What is wrong with a grammar in llguidance's notation; empty if nothing is.

        Raises Overloaded if too many others are tried, ServerError if the other process cannot be started.
        """
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise Overloaded("other requests' grammars are being tried")
        try:
            found = self._ask(self._running(), grammar, within_s=self._trial_s)
        finally:
            self._lock.release()
        if found is None:
            return f"it is too complex: compiling it takes more than {self._trial_s:g} seconds, or too much memory"
        return found

    def close(self) -> None:
        """End the other process, if it runs. It is started again if a grammar comes."""
        with self._lock:
            self._stop()

    def _running(self) -> "subprocess.Popen[str]":
        """The process, which is not about to end of idleness."""
        idle_s = time.monotonic() - self._asked_at
        if self._process is None or self._process.poll() is not None or idle_s > grammar_child.IDLE_S / 2:
            self._stop()
            self._process = self._started()
        self._asked_at = time.monotonic()
        return self._process

    def _started(self) -> "subprocess.Popen[str]":
        program = Path(grammar_child.__file__)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own file
                [sys.executable, "-P", str(program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise ServerError(f"grammars cannot be tried: {error}") from error
        if self._ask(process, self._known, within_s=START_S) is None:
            self._end(process)
            raise ServerError("grammars cannot be tried: the program that does so does not start")
        return process

    def _ask(self, process: "subprocess.Popen[str]", item: object, *, within_s: float) -> str | None:
        """Its answer; None if there was none in time, and then it was ended."""
        if process.stdin is None or process.stdout is None:
            raise ValueError("a process without pipes")
        timer = threading.Timer(within_s, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(item) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # it ended before it had read everything
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            return str(json.loads(line))
        self._stop()
        log.info("A grammar was too much for the process that tries them")
        return None

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._end(process)

    @staticmethod
    def _end(process: "subprocess.Popen[str]") -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was written was never read
                    log.debug("A pipe to a process that has ended")

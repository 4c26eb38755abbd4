"""Bundles in processes of their own that take turns: A B A B. A machine's speed drifts, and so meets all alike."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from device_agent.bench.bandwidth import Bandwidth, measure_bandwidth
from device_agent.bench.plan import Plan, common
from device_agent.bench.records import Facts, Round
from device_agent.engine.records import PrefillMode
from edgekit.bundle import open_bundle
from edgekit.errors import BundleError, UsageError

Step = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """A bundle's rounds."""

    folder: Path
    facts: Facts
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Results:
    """All bundles by the plan that all could do; the best bandwidth that was seen beside them."""

    plan: Plan
    bandwidth: Bandwidth
    measured: tuple[Measured, ...]


class Worker:
    """A bundle's process. Raises BundleError where it cannot load it, or ends."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self._process = process
        self.facts = msgspec.json.decode(self._line(), type=Facts)

    def round(self, plan: Plan) -> Round:
        """One turn."""
        assert self._process.stdin is not None  # noqa: S101 - both are pipes, see started()
        try:
            self._process.stdin.write(msgspec.json.encode(plan) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise BundleError(str(self.folder), "the process that measured it has ended") from error
        return msgspec.json.decode(self._line(), type=Round)

    def _line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - as above
        line = self._process.stdout.readline()
        if not line:
            raise BundleError(str(self.folder), "the process that measured it has ended")
        if line.startswith(b'{"problem":'):
            raise BundleError(str(self.folder), msgspec.json.decode(line)["problem"])
        return line


@contextmanager
def started(folder: Path, *, threads: int, most_rows: int, prefill: PrefillMode) -> Iterator[Worker]:
    """A worker, ended whatever happens."""
    command = [sys.executable, "-m", "device_agent.bench.worker", str(folder), str(threads), str(most_rows)]
    command.append(prefill)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own
    try:
        yield Worker(folder, process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was written to a process that had ended cannot be delivered
                if pipe is not None:
                    pipe.close()


def take_turns(
    folders: Sequence[Path], plan: Plan, *, threads: int, repetitions: int, step: Step, prefill: PrefillMode = "auto"
) -> Results:
    """Measure by `plan` as far as all bundles can; a first pass of the plan's first figures warms up.

    `step` is told what begins. Raises BundleError, or UsageError for a plan that a bundle cannot do.
    """
    check(folders, plan)
    bandwidths = []
    with ExitStack() as stack:
        workers = []
        for folder in folders:
            step(f"loading {folder.name}")
            worker = stack.enter_context(started(folder, threads=threads, most_rows=plan.most_rows, prefill=prefill))
            workers.append(worker)
        facts = [worker.facts for worker in workers]
        plan = common(plan, [each.context_tokens for each in facts], [each.most_rows for each in facts])
        for worker in workers:
            step(f"warming up {worker.folder.name}")
            worker.round(plan.first)
        rounds: list[list[Round]] = [[] for _ in workers]
        for number in range(repetitions):
            step("reading memory")
            bandwidths.append(measure_bandwidth(threads))
            for worker, done in zip(workers, rounds, strict=True):
                step(f"measuring {worker.folder.name}, {number + 1} of {repetitions}")
                done.append(worker.round(plan))
    measured = [Measured(f, each, tuple(done)) for f, each, done in zip(folders, facts, rounds, strict=True)]
    return Results(plan, _best(bandwidths), tuple(measured))


def steps(bundles: int, repetitions: int) -> int:
    """How often `step` is told something."""
    return 2 * bundles + repetitions * (bundles + 1)


def check(folders: Sequence[Path], plan: Plan) -> None:
    """What can be known before anything is loaded. Raises BundleError or UsageError."""
    for folder in folders:
        manifest = open_bundle(folder).manifest
        if manifest.task != "generate":
            raise UsageError(f"{folder} holds an embedding model, which writes no text. Use: edgekit embed")
        common(plan, [manifest.arch.context], [plan.most_rows])


def _best(found: Sequence[Bandwidth]) -> Bandwidth:
    """Interference only takes from it."""
    return Bandwidth(
        max(each.read_bytes_per_s for each in found), max(each.copy_bytes_per_s for each in found), found[0].threads
    )

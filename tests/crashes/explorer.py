"""Explores crashes: runs a scenario once, and its recovery after every crash that could have cut it off.

A scenario changes files below a folder, and marks what it has promised. `recover` does what the program does at its
next start; it is run twice. `check` looks at what is there then, with the marks that had been reached. `mutants`
leaves out one fsync of the code after the other: each must make some check fail, or it would not be needed.
"""

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crashes.disk import Image, Loss, crashes, digest, put
from tests.crashes.recorder import Op, Recorder, recording

Scenario = Callable[[Path, Recorder], None]
Recover = Callable[[Path], None]
Check = Callable[[Path, tuple[str, ...]], None]


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash whose recovery did not do: after which operation, what was lost, and why."""

    count: int
    loss: Loss
    problem: str
    op: Op | None

    def __str__(self) -> str:
        where = "" if self.op is None else f" ({self.op.kind} {self.op.path} at {self.op.site})"
        return f"crash after operation {self.count}{where}, lost: {self.loss}: {self.problem}"


class Exploration:
    """One recorded run of a scenario that begins with `prepare`d files."""

    def __init__(
        self, folder: Path, *, prepare: Callable[[Path], None], scenario: Scenario, recover: Recover, check: Check
    ) -> None:
        self._folder = folder
        self._recover = recover
        self._check = check
        self._good: set[tuple[str, int]] = set()
        root = folder / "run"
        root.mkdir(parents=True)
        prepare(root)
        with recording(root) as recorder:
            scenario(root, recorder)
        self.base, self.ops = recorder.base, recorder.ops
        self.states = 0

    @property
    def sites(self) -> Sequence[str]:
        """Places in the code that fsync, in order."""
        return list(dict.fromkeys(op.site for op in self.ops if op.kind == "fsync" and op.site))

    def failures(self, *, ignored_sites: Collection[str] = (), every: int = 1) -> Iterator[Crash]:
        """Crashes that recovery does not survive. With `every` n, only each n-th state is tried."""
        for number, (count, loss, marks, image) in enumerate(crashes(self.base, self.ops, ignored_sites)):
            key = (digest(image), len(marks))
            if number % every or key in self._good:
                continue
            problem = self._try(image, marks)
            self.states += 1
            if problem is None:
                self._good.add(key)
            else:
                yield Crash(count, loss, problem, self.ops[count - 1] if count else None)

    def _try(self, image: Image, marks: tuple[str, ...]) -> str | None:
        # Where the scenario ran, since the code may have written its own path into files.
        root = self._folder / "run"
        shutil.rmtree(root)
        root.mkdir()
        put(image, root)
        try:
            self._recover(root)
            self._check(root, marks)
            self._recover(root)
            self._check(root, marks)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            return f"{type(error).__name__}: {error}"
        return None

    def unneeded(self) -> list[str]:
        """Places whose fsync could be left out without any check failing. Run `failures` first."""
        return [site for site in self.sites if next(self.failures(ignored_sites=[site]), None) is None]

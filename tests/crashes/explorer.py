"""Explores crashes: runs a scenario once, and its recovery after every crash that could have cut it off.

A scenario changes files below a folder, and marks what it has promised. `recover` does what the program does at its
next start; it is run twice. `check` looks at what is there then, with the marks that had been reached. `converge` then
does the same work again, with everything in order, and says whether it came to its end. `unneeded` leaves out one
fsync of the code after the other: each must make some check fail, or it would not be needed.
"""

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.crashes.disk import Disk, Image, Loss, Marks, crashes, digest, put
from tests.crashes.recorder import Op, Recorder, recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is explored; see the module's text. `prepare` makes what is there before, which counts as durable."""

    prepare: Callable[[Path], None]
    act: Callable[[Path, Recorder], None]
    recover: Callable[[Path], None] | None
    """None where nobody recovers anything: what is there must do as it is."""
    check: Callable[[Path, Marks], None]
    converge: Callable[[Path], None] = lambda _: None
    resume: Callable[[Path], None] = lambda _: None
    """What a second crash cuts off, where there is no recovery."""
    observe: Callable[[Path], Marks] = lambda _: ()
    """What somebody may rely on who looks after a recovery, as marks: no later crash may take it back."""


def parts(site: str) -> Sequence[str]:
    """Where the code stands that fsyncs, and last for whom it does."""
    return site.split(" for ")


def unneeded(found: Collection["Exploration"], *, part: int, every: int, all_sites: bool = True) -> Sequence[str]:
    """Places without whose fsyncs every crash is survived, by that part of a site (see `parts`).

    Not `all_sites`: those that only who comes after a crash gets to are left out, since few such crashes were tried.
    """
    places: dict[str, set[str]] = {}
    for one in found:
        for site in (*one.sites, *(one.second_sites if all_sites else ())):
            if not site.startswith("edgekit/slots.py"):  # test_explorer.py asks for these
                places.setdefault(parts(site)[part], set()).add(site)
    left = [place for place, sites in places.items() if not any(one.needs(sites) for one in found)]
    return [place for place in sorted(left) if not any(one.needs_twice(places[place], every=every) for one in found)]


_State = tuple[str, Marks]


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
    """One recorded run of a scenario in `folder`."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self._root = folder / "run"
        self._scenario = scenario
        self._good: set[_State] = set()
        self._converged: set[_State] = set()
        self.second_sites: set[str] = set()
        self.seconds = 0.0
        self.lost = 0
        self._root.mkdir(parents=True)
        scenario.prepare(self._root)
        with recording(self._root) as recorder:
            scenario.act(self._root, recorder)
        self.base, self.ops = recorder.base, recorder.ops

    def _disk(self, ignored_sites: Collection[str] = ()) -> Disk:
        return Disk(self.base, ignored_sites)

    @property
    def sites(self) -> Sequence[str]:
        """Places in the code that fsync, in order."""
        return list(dict.fromkeys(op.site for op in self.ops if op.kind == "fsync" and op.site))

    @property
    def states(self) -> int:
        """How many different states were found good, after a first crash or a second one."""
        return len(self._good)

    def failures(self, *, ignored_sites: Collection[str] = (), converge_every: int = 1) -> Iterator[Crash]:
        """Crashes that recovery does not survive. Only each n-th is made to converge."""
        for crash in self._explored(self._disk(ignored_sites), self.ops, (), converge_every):
            self.lost += not ignored_sites
            yield crash

    def second_failures(self, *, ignored_sites: Collection[str] = (), every: int = 1) -> Iterator[Crash]:
        """Crashes that follow upon another: the process was killed, and power fails while it recovers.

        Only each n-th operation is one after which it is killed, and the one before the last fsync: what that was to
        make durable is there already for whoever comes next, who may take it for granted.
        """
        for count in self._kills(every):
            disk, marks = self._disk(ignored_sites), []
            for op in self.ops[:count]:
                disk.play(op)
                marks += [op.path] if op.kind == "mark" else []
            self._fill(disk.image("nothing"))
            with recording(self._root) as recorder:
                (self._scenario.recover or self._scenario.resume)(self._root)
                for mark in self._scenario.observe(self._root):
                    recorder.mark(mark)
            self.second_sites.update(op.site for op in recorder.ops if op.kind == "fsync" and op.site)
            for crash in self._explored(disk.renumbered(recorder.base), recorder.ops, marks, 10**9):
                self.lost += not ignored_sites
                yield crash

    def _kills(self, every: int) -> Sequence[int]:
        fsyncs = [count for count, op in enumerate(self.ops) if op.kind == "fsync"]
        return sorted({*range(every - 1, len(self.ops) + 1, every), *fsyncs[-1:]})

    def needs(self, sites: Collection[str]) -> bool:
        """Whether a crash breaks something without the fsyncs of these places. Ask after all were looked at."""
        ignored = set(sites) & set(self.sites)
        return bool(ignored) and any(True for _ in self.failures(ignored_sites=ignored, converge_every=10**9))

    def needs_twice(self, sites: Collection[str], *, every: int = 1) -> bool:
        """The same for a second crash, which takes longer to find out."""
        ignored = set(sites) & {*self.sites, *self.second_sites}
        return bool(ignored) and any(True for _ in self.second_failures(ignored_sites=ignored, every=every))

    def _explored(self, disk: Disk, ops: Sequence[Op], marks: Sequence[str], converge_every: int) -> Iterator[Crash]:
        for number, (count, loss, reached, image) in enumerate(crashes(disk, ops, marks), 1):
            state, converge = (digest(image), reached), number % converge_every == 0
            if state in (self._converged if converge else self._good):
                continue
            problem = self._tried(image, reached, converge=converge)
            if problem is None:
                self._good.add(state)
                self._converged |= {state} if converge else set()
            else:
                yield Crash(count, loss, problem, ops[count - 1] if count else None)

    def _fill(self, image: Image) -> None:
        # Where the scenario ran, since the code may have written its own path into files.
        shutil.rmtree(self._root)
        self._root.mkdir()
        put(image, self._root)

    def _tried(self, image: Image, marks: Marks, *, converge: bool) -> str | None:
        self._fill(image)
        started = time.monotonic()
        with mock.patch.object(os, "fsync"):  # takes most of the time, and does nothing for a disk that stays
            try:
                self._look(marks, converge=converge)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                return f"{type(error).__name__}: {error}"
            finally:
                self.seconds += time.monotonic() - started
        return None

    def _look(self, marks: Marks, *, converge: bool) -> None:
        for _ in range(2 if self._scenario.recover else 1):
            if self._scenario.recover:
                self._scenario.recover(self._root)
            self._scenario.check(self._root, marks)
        if converge:
            self._scenario.converge(self._root)

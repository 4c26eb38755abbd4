"""Running requests over the rows of one model: every step serves as many of them as it can. No threads, no queue."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import InvalidStateError
from dataclasses import dataclass

from device_agent.engine.kept.prefixes import Entry, Prefixes, common
from device_agent.engine.kept.seats import FEWEST_TOKENS, Seats
from device_agent.engine.rows import Floats, Lora, Rows, Snapshot
from device_agent.engine.scheduling.answers import Job
from device_agent.engine.scheduling.costs import Costs
from device_agent.engine.scheduling.sequence import Guesser, Language, Run
from device_agent.engine.scheduling.turns import Decode, Pace, Read, Reader, next_turn
from edgekit.errors import EdgekitError, ServerError

log = logging.getLogger(__name__)

KEPT_POSITIONS = 32
"""Of a prompt whose own logprobs are wanted: logits of so many tokens at once (6 MB for a vocabulary of 49,152) have a
buffer that stays (`shared`)."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests run together, and how many bytes of ended ones are kept."""

    slots: int
    prefix_bytes: int


@dataclass(slots=True)
class Counters:
    """Tokens since the start: read of prompts, not read because they were known, written; guesses, and right ones."""

    read: int = 0
    cached: int = 0
    written: int = 0
    drafted: int = 0
    accepted: int = 0


class Batch:
    """Runs by the row that each has. Rows may be taken away and given back (`detach`, `attach`) between steps."""

    def __init__(
        self,
        language: Language,
        room: Room,
        *,
        pace: Pace,
        clock: Callable[[], float],
        guess: Callable[[], Guesser] | None = None,
    ) -> None:
        self.room = room
        self.counters = Counters()
        self._language = language
        self._pace = pace
        self._clock = clock
        self._guess = guess
        self._costs = Costs()
        self._prefixes = Prefixes()
        self._model: tuple[Rows, Seats] | None = None
        self._runs: dict[int, Run] = {}
        self._leaders: dict[int, tuple[Run, int]] = {}  # by row: who reads the same beginning just now, up to where
        self._suspended: list[tuple[Run, Snapshot | None]] = []
        self._read_last = False

    @property
    def loaded(self) -> bool:
        """Whether there are rows."""
        return self._model is not None

    @property
    def jobs(self) -> list[Job]:
        """Those that run, the oldest first."""
        return [run.job for run in (*self._runs.values(), *(run for run, _ in self._suspended))]

    @property
    def kept(self) -> tuple[int, int]:
        """Texts of ended requests that are kept, and their bytes."""
        return self._model[1].kept if self._model else (len(self._prefixes), self._prefixes.nbytes)

    def attach(self, rows: Rows) -> None:
        """Use these rows, all of them empty; runs that were suspended go on."""
        self._model = rows, Seats(rows, self._prefixes, slots=self.room.slots, limit_bytes=self.room.prefix_bytes)
        suspended, self._suspended = self._suspended, []
        for run, snapshot in suspended:
            row = self._sit(run)
            if snapshot is not None:
                self._seats.refill(row, snapshot)
                run.read = rows.length(row)

    def detach(self) -> None:
        """Let go of the rows. Runs keep a copy of their cache, and so do texts of ended ones within the bound."""
        if self._model is None:
            return
        self._suspended = [(run, self._seats.copy(row)) for row, run in self._runs.items()]
        self._runs.clear()
        self._leaders.clear()
        self._seats.save()
        self._model = None

    def forget(self) -> None:
        """Drop runs and rows as they are: whoever calls has told the readers."""
        self._runs.clear()
        self._leaders.clear()
        self._suspended.clear()
        self._model = None

    def pin(self, ids: Sequence[int], snapshot: Snapshot) -> None:
        """Keep the beginning of future prompts for good, if it is within the bound."""
        if self._prefixes.make_room(snapshot.nbytes, limit_bytes=self.room.prefix_bytes):
            self._prefixes.put(Entry(tuple(ids), snapshot, pinned=True))

    def forget_adapter(self, lora: Lora) -> None:
        """Let go of texts of ended requests that were computed with it."""
        self._prefixes.forget(lora)
        if self._model:
            self._seats.forget(lora)

    def shrink(self) -> None:
        """Give back memory that no cached token needs."""
        if self._model:
            self._rows.shrink()

    def join(self, job: Job) -> None:
        """Give a request a row; there must be rows, and a free one."""
        try:
            run = Run(
                job,
                self._language,
                context_tokens=self._rows.context_tokens,
                clock=self._clock,
                guesser=self._guess() if self._guess else None,
            )
            run.served = min((other.served for other in self._reading()), default=0)
            row = self._sit(run)
        except Exception as error:  # noqa: BLE001 - as in `_guarded`: it must reach its reader
            job.end(_reason(error))
            return
        run.cached = run.read
        self.counters.cached += run.read
        self._runs[row] = run
        self._follow(row, run)

    def step(self) -> None:
        """One step of the model for those who want it most, after those who were cancelled have left."""
        for row, run in list(self._runs.items()):
            if run.job.cancelled.is_set():
                with self._guarded(row):
                    run.cancel()
        turn = self._turn()
        self._read_last = isinstance(turn, Read)
        if isinstance(turn, Read):
            with self._guarded(turn.row) as run:
                self._read(turn.row, run, turn.count)
        elif isinstance(turn, Decode):
            for rows in self._by_adapter(turn.rows):
                if len(rows) > 1:
                    self._write_together(rows)
                else:
                    self._write(rows[0])

    # --- what comes next ------------------------------------------------------------------------

    def _turn(self) -> Decode | Read | None:
        """Preparations wait until nobody else wants anything."""
        served = {row: run for row, run in self._runs.items() if run.job.prepared is None} or self._runs
        waiting = [row for row in served if self._waits(row)]
        readers, writers = [], []
        for row, run in served.items():
            if not run.reads:
                writers.append(row)
            elif row not in waiting:
                readers.append(Reader(row, run.left, run.served))
        return next_turn(readers, writers, self._costs, pace=self._pace, read_last=self._read_last)

    def _reading(self) -> list[Run]:
        return [run for run in self._runs.values() if run.reads and run.job.prepared is None]

    def _follow(self, row: int, run: Run) -> None:
        """If somebody reads the same beginning just now, wait for it rather than read it twice."""
        if run.job.prepared is not None or run.wants_prompt or not self.room.prefix_bytes:
            return
        most = len(run.ids) - 1
        others = [other for other in self._reading() if other is not run and other.job.lora is run.job.lora]
        found = [(min(common(other.ids, run.ids), most), other) for other in others]
        planned, leader = max(found, key=lambda pair: pair[0], default=(0, run))
        if planned >= run.read + FEWEST_TOKENS:
            self._leaders[row] = leader, planned

    def _waits(self, row: int) -> bool:
        if row not in self._leaders:
            return False
        leader, planned = self._leaders[row]
        if not leader.finished and leader.read < planned:
            return True
        del self._leaders[row]
        self._seats.catch_up(row)
        run = self._runs[row]
        self.counters.cached += self._rows.length(row) - run.read
        run.read = run.cached = self._rows.length(row)
        return False

    # --- steps of the model ---------------------------------------------------------------------

    def _read(self, row: int, run: Run, count: int) -> None:
        if run.wants_prompt:
            count = min(count, KEPT_POSITIONS)
        last = count == run.left
        ids = run.ids[run.read : run.read + count]
        keep = count if run.wants_prompt else int(last and run.job.prepared is None)
        began = self._clock()
        logits = self._rows.read(row, ids, keep=keep)
        if not run.wants_prompt:  # which takes longer, and would make others' chunks shorter
            self._costs.note_read(count, self._clock() - began)
        run.read += count
        run.served += count
        self.counters.read += count
        if keep:
            self._accept(run, logits)
        elif last and run.job.prepared is not None:
            snapshot = self._rows.snapshot(row, run.read)
            with contextlib.suppress(InvalidStateError):  # whoever asked may have cancelled it
                run.job.prepared.set_result(snapshot)
            run.finished = True

    def _by_adapter(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows that can share a step of the model: those with the same adapter."""
        found: dict[Lora | None, list[int]] = {}
        for row in rows:
            found.setdefault(self._runs[row].job.lora, []).append(row)
        return list(found.values())

    def _write_together(self, rows: Sequence[int]) -> None:
        began = self._clock()
        try:
            logits = self._rows.decode({row: self._runs[row].ids[-1] for row in rows})
        except Exception:  # noqa: BLE001 - one by one, so that only the one at fault ends, with its reason
            for row in rows:
                self._write(row)
            return
        self._costs.note_decode(len(rows), self._clock() - began)
        for at, row in enumerate(rows):
            with self._guarded(row) as run:
                run.read += 1
                self._accept(run, logits[at : at + 1])

    def _write(self, row: int) -> None:
        with self._guarded(row) as run:
            # Guesses are worth verifying where the model is there for this request alone.
            drafts = run.drafts(cost=self._costs.verify_s) if len(self._runs) == 1 else ()
            began = self._clock()
            if not drafts:
                logits = self._rows.decode({row: run.ids[-1]})
                self._costs.note_decode(1, self._clock() - began)
            else:
                logits = self._rows.read(row, (run.ids[-1], *drafts), keep=len(drafts) + 1)
                self._costs.note_verify(len(drafts) + 1, self._clock() - began)
            run.read += 1
            self._accept(run, logits, drafts)
            if drafts:  # the newest token is not in the cache, and every one before it is
                run.read = len(run.ids) - 1
                self._rows.truncate(row, run.read)

    def _accept(self, run: Run, logits: Floats, drafts: Sequence[int] = ()) -> None:
        made, accepted = run.made, run.accepted
        if run.wants_prompt:
            run.accept_prompt(logits)
        else:
            run.accept(logits, drafts)
        self.counters.written += run.made - made
        self.counters.drafted += len(drafts)
        self.counters.accepted += run.accepted - accepted

    @contextlib.contextmanager
    def _guarded(self, row: int) -> Iterator[Run]:
        """What goes wrong inside ends this run and no other; and if the run has ended, its row is free."""
        run = self._runs[row]
        failed = False
        try:
            yield run
        except Exception as error:  # noqa: BLE001 - whatever it is, it must reach its reader
            run.finished = failed = True
            run.job.end(_reason(error))
        if run.finished:
            del self._runs[row]
            self._leaders.pop(row, None)
            self._seats.leave(row, keep=not failed)

    def _sit(self, run: Run) -> int:
        row = self._seats.take(run.ids, run.job.lora, fresh=run.wants_prompt)
        run.read = self._rows.length(row)
        self._runs[row] = run
        return row

    @property
    def _rows(self) -> Rows:
        return self._loaded_model()[0]

    @property
    def _seats(self) -> Seats:
        return self._loaded_model()[1]

    def _loaded_model(self) -> tuple[Rows, Seats]:
        if self._model is None:
            raise RuntimeError("the model is not loaded")
        return self._model


def _reason(error: Exception) -> EdgekitError:
    """What the reader is told; the log has what it should not have to know."""
    if isinstance(error, EdgekitError):
        return error
    log.error("A generation failed", exc_info=error)
    return ServerError("an unexpected error ended this generation; the log has its traceback")

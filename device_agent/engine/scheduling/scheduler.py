"""The one thread that owns the model: requests wait in a bounded queue, run together, and come back in pieces.

Everyone else submits a record and reads its answer (`answers`). The thread takes up requests while there are slots,
lets the batch make one step after the other, and tends the model in between: it is loaded again with other threads,
rests between steps to keep to its duty, and leaves memory when nobody has asked for anything for a while.
"""

import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import psutil

from device_agent.engine.grammars.guide import Guide
from device_agent.engine.records import MOST_TOP_LOGPROBS, EngineSettings, EngineState, Generation, Grammar
from device_agent.engine.rows import Lora, Rows, Snapshot
from device_agent.engine.sampling import make_sampler
from device_agent.engine.scheduling.answers import Job, QueuedAnswer
from device_agent.engine.scheduling.batch import Batch, Room
from device_agent.engine.scheduling.budget import prefix_bytes_for, slots_for
from device_agent.engine.scheduling.sequence import Guesser, Language, room_for
from device_agent.engine.scheduling.turns import Pace
from device_agent.engine.text.decoding import StopStrings
from edgekit.errors import EdgekitError, InvalidRequest, Overloaded, ServerError, ShuttingDown, UsageError
from edgekit.hardware import usable_cores

log = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 60
SHRINK_AFTER_S = 20.0
"""Without work: the cache gives back what it grew by. Sooner, it would have to grow again for the next question."""


class Scheduler:
    """Serves requests in the order of `submit`, as many together as there are slots.

    `rows` is the model as it was loaded on the settings' threads, `open_rows` loads it again on so many. The thread is
    a daemon: a program that ends without `close` is not kept alive by it. Raises UsageError for settings out of range.
    """

    def __init__(
        self,
        rows: Rows,
        open_rows: Callable[[int], Rows],
        language: Language,
        settings: EngineSettings,
        *,
        guess: Callable[[], Guesser] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        _check(settings)
        memory = psutil.virtual_memory()
        slots = slots_for(
            settings.slots,
            most_rows=rows.most_rows,
            bytes_per_token=rows.bytes_per_token,
            context_tokens=rows.context_tokens,
            available_bytes=memory.available,
        )
        room = Room(slots, prefix_bytes_for(settings.prefix_bytes, total_bytes=memory.total))
        pace = Pace(settings.chunk_tokens, settings.stall)
        self._open_rows = open_rows
        self._language = language
        self._settings = settings
        self._clock = clock
        self._context_tokens = rows.context_tokens
        self._batch = Batch(language, room, pace=pace, clock=clock, guess=guess)  # the thread's, once it runs
        self._batch.attach(rows)
        self._loaded_threads = settings.threads or usable_cores()
        self._thread = threading.Thread(target=self._work, name="edgekit-model", daemon=True)
        self._changed = threading.Condition()  # guards everything below
        self._waiting: collections.deque[Job] = collections.deque()
        self._errands: collections.deque[Job] = collections.deque()  # to be prepared when nothing else is to be done
        self._chores: list[Callable[[], None]] = []
        self._running: dict[Job, float] = {}  # and when each began
        self._closing = False
        self._resting = False
        self._kept = (0, 0)
        self._threads = self._loaded_threads
        self._duty = settings.duty
        self._usual_s = 0.0  # a moving average of what an answer takes

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    # --- requests, from any thread --------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a request is being answered or a prefix prepared."""
        return bool(self._running)

    def depth(self) -> int:
        """Requests that wait for their turn, running ones not counted."""
        return len(self._waiting)

    def submit(
        self, generation: Generation, *, lora: Lora | None = None, on_piece: Callable[[], None] | None = None
    ) -> QueuedAnswer:
        """Queue a request. Nothing of it is computed yet, but all of it is checked, and its grammar is compiled.

        `lora` is its adapter.

        `on_piece` is called after each piece or error that can be read, on the thread that delivers it; what it raises
        is logged. Raises InvalidRequest (empty prompt, an id outside of the vocabulary, a limit or a sampling parameter
        out of range, an empty stop string, a grammar that is none), ContextOverflow, Overloaded (queue full) or
        ShuttingDown (after `close`).
        """
        job = self._checked(generation, lora=lora, on_piece=on_piece)
        with self._changed:
            if len(self._waiting) >= self._settings.queue_limit and not self._closing:
                a_slot_s = self._usual_s / self._batch.room.slots
                retry_after_s = min(max(1, math.ceil(a_slot_s)), MAX_RETRY_AFTER_S)
                raise Overloaded(f"{len(self._waiting)} requests are waiting already", retry_after_s)
            self._queue(self._waiting, job)
        return QueuedAnswer(job, self._withdraw)

    def prepare(self, ids: Sequence[int]) -> "Future[Snapshot]":
        """Read `ids` as soon as nobody has a request, and return keys and values of them.

        The future fails with what a request would, and is cancelled by `close`. Raises as `submit` does.
        """
        prepared: Future[Snapshot] = Future()
        job = self._checked(Generation(prompt=tuple(ids)), prepared=prepared)
        with self._changed:
            self._queue(self._errands, job)
        return prepared

    def warm(self, ids: Sequence[int], snapshot: Snapshot) -> None:
        """Keep this beginning of prompts for good, within the bound on kept bytes."""
        self.between_steps(lambda: self._batch.pin(ids, snapshot))

    def forget_adapter(self, lora: Lora) -> None:
        """Let go of what was computed with it. Requests that run or wait still have it."""
        self.between_steps(lambda: self._batch.forget_adapter(lora))

    def between_steps(self, chore: Callable[[], None]) -> None:
        """Have the thread that owns the model call `chore` soon, while no step is running. What it raises is logged."""
        with self._changed:
            self._chores.append(chore)
            self._changed.notify_all()

    def _checked(
        self,
        generation: Generation,
        *,
        prepared: "Future[Snapshot] | None" = None,
        lora: Lora | None = None,
        on_piece: Callable[[], None] | None = None,
    ) -> Job:
        prompt, vocab = generation.prompt, self._language.vocab
        room_for(generation, context_tokens=self._context_tokens)
        if min(prompt) < 0 or max(prompt) >= vocab:
            raise InvalidRequest(f"The prompt has a token id outside of 0 to {vocab - 1}.", param="prompt")
        StopStrings(generation.stop)  # made again when its turn comes; here for what it refuses
        if not 0 <= (generation.top_logprobs or 0) <= MOST_TOP_LOGPROBS:
            raise InvalidRequest(
                f"top_logprobs is {generation.top_logprobs}, and must be from 0 to {MOST_TOP_LOGPROBS}.",
                param="top_logprobs",
            )
        sampler = make_sampler(generation.sampling, vocab=vocab)
        return Job(
            generation,
            sampler,
            prepared=prepared,
            lora=lora,
            guide=self._guide(generation.grammar),
            on_piece=on_piece,
        )

    def _guide(self, grammar: Grammar | None) -> Guide | None:
        if grammar is None:
            return None
        if self._language.guide is None:
            raise InvalidRequest("This model follows no grammars.", param="grammar")
        return self._language.guide(grammar)

    def _queue(self, where: collections.deque[Job], job: Job) -> None:
        if self._closing:
            raise ShuttingDown("no new requests are taken")
        where.append(job)
        self._changed.notify_all()

    def _withdraw(self, job: Job) -> None:
        """Take a request out of the queue; one that is not there runs or has ended, and sees its flag."""
        with self._changed:
            waited = job in self._waiting
            if waited:
                self._waiting.remove(job)
            self._changed.notify_all()  # a rest may be over for it
        if waited:  # not under the lock: who hears of it may want something of other threads
            job.end_unserved()

    # --- the governor's hooks, from any thread --------------------------------------------------

    def set_duty(self, fraction: float) -> None:
        """Work for this fraction of the time: after each step of t seconds, rest for t * (1 / fraction - 1).

        Raises UsageError unless 0 < fraction <= 1.
        """
        _check_duty(fraction)
        with self._changed:
            self._duty = fraction
            self._changed.notify_all()

    def set_threads(self, threads: int) -> None:
        """Compute on so many threads from the next step on; requests that run go on. Raises UsageError below 1."""
        _check_threads(threads)
        with self._changed:
            self._threads = threads
            self._changed.notify_all()

    def state(self) -> EngineState:
        """What it is doing now. The parts are read one after the other, and may be a step apart."""
        counters = self._batch.counters
        with self._changed:
            entries, nbytes = self._kept
            return EngineState(
                running=len(self._running),
                waiting=len(self._waiting),
                slots=self._batch.room.slots,
                loaded=self._batch.loaded,
                resting=self._resting,
                threads=self._threads,
                cached_entries=entries,
                cached_bytes=nbytes,
                read_tokens=counters.read,
                cached_tokens=counters.cached,
                written_tokens=counters.written,
                drafted=counters.drafted,
                accepted=counters.accepted,
            )

    def close(self, *, finish: bool) -> None:
        """Take no more requests, end those that were taken, and wait for the thread to end.

        `finish` lets the running and the waiting ones come to their own end, without rests; otherwise they are
        cancelled. May be called again and from several threads: a second call without `finish` cuts a patient first
        one short. If the model is being loaded, the thread ends after that.
        """
        with self._changed:
            self._closing = True
            unserved = [*self._errands]
            self._errands.clear()
            if not finish or self._thread.ident is None:  # a thread that was never started serves nobody
                unserved += self._waiting
                self._waiting.clear()
                for job in self._running:
                    job.cancelled.set()
            self._changed.notify_all()
            started = self._thread.ident is not None
        for job in unserved:
            job.end_unserved()
        if started:
            self._thread.join()

    # --- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        while self._wait_for_work():
            joining = self._take()
            try:
                self._tend_model()
                for job in joining:
                    self._batch.join(job)
                began = self._clock()
                self._batch.step()
                took_s = self._clock() - began
            except Exception as error:  # noqa: BLE001 - whatever it is, readers must hear of it, and the thread live
                self._fail(error)
                continue
            self._settle()
            self._rest(took_s)

    def _wait_for_work(self) -> bool:
        """Tidy up step by step while there is nothing to do; False if there never will be."""
        for idle_s, tidy in self._tidying():
            with self._changed:
                if self._changed.wait_for(self._has_work, timeout=idle_s):
                    return not self._closing or bool(self._waiting or self._running)
            try:
                tidy()
            except Exception:
                log.exception("The idle model cannot be tidied up")
            with self._changed:
                self._kept = self._batch.kept
        return False

    def _has_work(self) -> bool:
        reload = self._batch.loaded and self._threads != self._loaded_threads
        return bool(self._waiting or self._running or self._errands or self._chores or reload or self._closing)

    def _tidying(self) -> Iterator[tuple[float | None, Callable[[], None]]]:
        """What to do after further seconds of idleness; the last one never comes to its end."""
        unload_s = self._settings.idle_unload_s
        if self._batch.loaded and (unload_s is None or unload_s > SHRINK_AFTER_S):
            yield SHRINK_AFTER_S, self._batch.shrink
            unload_s = None if unload_s is None else unload_s - SHRINK_AFTER_S
        if self._batch.loaded and unload_s is not None:
            yield unload_s, self._batch.detach
        yield None, self._batch.shrink

    def _take(self) -> list[Job]:
        """Requests whose turn has come; something to prepare only if there is no request at all."""
        with self._changed:
            joining: list[Job] = []
            free = self._batch.room.slots - len(self._running)
            while self._waiting and len(joining) < free:
                joining.append(self._waiting.popleft())
            if self._errands and not joining and not self._running:
                joining.append(self._errands.popleft())
            self._running |= dict.fromkeys(joining, self._clock())
            return joining

    def _tend_model(self) -> None:
        """Load the model if it is not, or is on other threads than it should be; keep what was brought."""
        with self._changed:
            threads, chores = self._threads, self._chores
            self._chores = []
        for chore in chores:
            try:
                chore()
            except Exception:
                log.exception("A chore between two steps failed")
        if self._batch.loaded and threads == self._loaded_threads:
            return
        if not self._batch.loaded and not self._running:  # nobody needs it yet
            return
        self._batch.detach()
        self._batch.attach(self._open_rows(threads))
        self._loaded_threads = threads

    def _settle(self) -> None:
        """Take note of what has ended."""
        alive = set(self._batch.jobs)
        ended = [job for job in self._running if job not in alive]
        if not ended:
            return
        with self._changed:
            self._kept = self._batch.kept
            for job in ended:
                took_s = self._clock() - self._running.pop(job)
                self._usual_s = 0.7 * self._usual_s + 0.3 * took_s if self._usual_s else took_s

    def _rest(self, took_s: float) -> None:
        duty = self._duty
        if duty >= 1 or not self._running:
            return
        with self._changed:
            self._resting = True
            self._changed.wait_for(
                lambda: self._closing or self._duty != duty or any(job.cancelled.is_set() for job in self._running),
                timeout=took_s * (1 / duty - 1),
            )
            self._resting = False

    def _fail(self, error: Exception) -> None:
        """The model cannot be loaded, or the batch is broken: everybody hears why, and the next request tries anew."""
        if not isinstance(error, EdgekitError):
            log.error("The model's thread failed", exc_info=error)
            error = ServerError("an unexpected error ended this generation; the log has its traceback")
        self._batch.forget()
        with self._changed:
            ended = [*self._running, *self._waiting, *self._errands]
            self._running.clear()
            self._waiting.clear()
            self._errands.clear()
        for job in ended:
            job.end(error)


def _check(settings: EngineSettings) -> None:
    _check_threads(settings.threads if settings.threads is not None else 1)
    _check_duty(settings.duty)
    if settings.slots is not None and settings.slots < 1:
        raise UsageError(f"{settings.slots} slots: at least one is needed.")


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise UsageError(f"{threads} threads: at least one is needed.")


def _check_duty(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise UsageError(f"A duty of {fraction}: more than 0 is needed, and at most 1.")

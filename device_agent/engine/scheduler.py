"""The one thread that owns the model: requests wait in a bounded queue, answers come back in pieces.

Everyone else submits a record and reads its answer. The pieces of an answer pass through a queue without a
limit: they are a few hundred bytes each and at most as many as the context has tokens, and a limit would let
one reader who does not read stall everybody else. What is limited is the number of requests that wait.
"""

import collections
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from device_agent.engine.generate import CHUNK_TOKENS, StepDecoder, answer, room_for
from device_agent.engine.records import Generation, Piece, Timings
from device_agent.engine.sampling import Sampler, make_sampler
from device_agent.engine.text import StopStrings, TextDecoder
from edgekit.errors import EdgekitError, InvalidRequest, Overloaded, ServerError, ShuttingDown

log = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A request on its way: what to do, where its pieces go, whether they are still wanted."""

    generation: Generation
    sampler: Sampler
    outbox: "queue.SimpleQueue[Piece | EdgekitError]" = field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def end_unserved(self) -> None:
        """Say "cancelled" for a request whose turn never came."""
        timings = Timings(prompt_tokens=len(self.generation.prompt), prompt_s=0.0, generated_tokens=0, generate_s=0.0)
        self.outbox.put(Piece(text="", finish="cancelled", timings=timings))


class QueuedAnswer:
    """A generation that waits, runs or has ended (records.Answer). One reader; `cancel` from any thread."""

    def __init__(self, job: _Job, withdraw: Callable[[_Job], None]) -> None:
        self._job = job
        self._withdraw = withdraw
        self._ended = False
        self._error: EdgekitError | None = None

    def next(self, timeout_s: float | None = None) -> Piece | None:
        """The next piece, or None if none came within `timeout_s` seconds, or if the last one was read already.

        Raises EdgekitError if generation failed, then and at every later call.
        """
        if self._error:
            raise self._error
        if self._ended:
            return None
        try:
            item = self._job.outbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, EdgekitError):
            self._error = item
            raise item
        self._ended = item.finish is not None
        return item

    def __iter__(self) -> Iterator[Piece]:
        """All pieces up to and including the one with `finish`. Raises EdgekitError if generation failed."""
        while (piece := self.next()) is not None:
            yield piece

    def cancel(self) -> None:
        """Leave the queue at once, or stop within one token; the last piece then says "cancelled".

        Harmless when the answer has ended.
        """
        self._job.cancelled.set()
        self._withdraw(self._job)


class Scheduler:
    """Serves one generation after the other, in the order of `submit`.

    The thread is a daemon: a program that ends without `close` is not kept alive by it.
    """

    def __init__(
        self,
        decoder: StepDecoder,
        tokenizer: TextDecoder,
        eos: tuple[int, ...],
        *,
        vocab: int,
        queue_limit: int = 16,
        chunk_tokens: int = CHUNK_TOKENS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._eos = frozenset(eos)
        self._vocab = vocab
        self._queue_limit = queue_limit
        self._chunk_tokens = chunk_tokens
        self._clock = clock
        self._thread = threading.Thread(target=self._work, name="edgekit-model", daemon=True)
        self._changed = threading.Condition()  # guards everything below
        self._waiting: collections.deque[_Job] = collections.deque()
        self._running: _Job | None = None
        self._closing = False
        self._usual_s = 0.0  # a moving average of what an answer takes

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a generation is running."""
        return self._running is not None

    def depth(self) -> int:
        """Requests that wait for their turn, the running one not counted."""
        return len(self._waiting)

    def submit(self, generation: Generation) -> QueuedAnswer:
        """Queue a request. Nothing of it is computed yet, but all of it is checked.

        Raises InvalidRequest (empty prompt, an id outside of the vocabulary, a limit or a sampling parameter out
        of range, an empty stop string), ContextOverflow, Overloaded (queue full) or ShuttingDown (after `close`).
        """
        prompt = generation.prompt
        room_for(len(prompt), max_tokens=generation.max_tokens, context_tokens=self._decoder.context_tokens)
        if min(prompt) < 0 or max(prompt) >= self._vocab:
            raise InvalidRequest(f"The prompt has a token id outside of 0 to {self._vocab - 1}.", param="prompt")
        StopStrings(generation.stop)  # made again when its turn comes; here for what it refuses
        job = _Job(generation, make_sampler(generation.sampling, vocab=self._vocab))
        with self._changed:
            if self._closing:
                raise ShuttingDown("no new requests are taken")
            if len(self._waiting) >= self._queue_limit:
                retry_after_s = min(max(1, math.ceil(self._usual_s)), MAX_RETRY_AFTER_S)
                raise Overloaded(f"{len(self._waiting)} requests are waiting already", retry_after_s)
            self._waiting.append(job)
            self._changed.notify_all()
        return QueuedAnswer(job, self._withdraw)

    def close(self, *, finish: bool) -> None:
        """Take no more requests, end those that were taken, and wait for the thread to end.

        `finish` lets the running and the waiting ones come to their own end; otherwise they are cancelled. May be
        called again and from several threads: a second call without `finish` cuts a patient first one short.
        """
        with self._changed:
            self._closing = True
            if not finish or self._thread.ident is None:  # a thread that was never started serves nobody
                while self._waiting:
                    self._waiting.popleft().end_unserved()
                if self._running:
                    self._running.cancelled.set()
            self._changed.notify_all()
            started = self._thread.ident is not None
        if started:
            self._thread.join()

    def _withdraw(self, job: _Job) -> None:
        """Take a request out of the queue; one that is not there runs or has ended, and sees its flag."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.end_unserved()

    def _work(self) -> None:
        while (job := self._take()) is not None:
            began = self._clock()
            self._serve(job)
            self._note(self._clock() - began)

    def _take(self) -> _Job | None:
        """The next request, or None when there is none and never will be."""
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._running = self._waiting.popleft() if self._waiting else None
            return self._running

    def _note(self, took_s: float) -> None:
        with self._changed:
            self._usual_s = 0.7 * self._usual_s + 0.3 * took_s if self._usual_s else took_s

    def _serve(self, job: _Job) -> None:
        """Deliver every piece, or the reason why there are no more; never raises."""
        try:
            for piece in answer(
                self._decoder,
                job.generation,
                job.sampler,
                tokenizer=self._tokenizer,
                eos=self._eos,
                cancelled=job.cancelled.is_set,
                chunk_tokens=self._chunk_tokens,
                clock=self._clock,
            ):
                job.outbox.put(piece)
        except EdgekitError as error:
            job.outbox.put(error)
        except Exception:  # whatever it is, it must reach its reader, and the next request must be served
            log.exception("A generation failed")
            job.outbox.put(ServerError("an unexpected error ended this generation; the log has its traceback"))

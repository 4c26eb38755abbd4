"""A request on its way, and the answer as its reader sees it. The pieces pass through a queue without a limit.

They are a few hundred bytes each and at most as many as the context has tokens, and a limit would let one reader who
does not read stall everybody else.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from device_agent.engine.grammars.guide import Guide
from device_agent.engine.records import Generation, Piece, Timings
from device_agent.engine.rows import Lora, Snapshot
from device_agent.engine.sampling import Sampler
from edgekit.errors import EdgekitError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What to do, where the pieces go, whether they are still wanted.

    `lora` is the adapter that `generation` names, in memory. With a `guide` the answer follows a grammar. `on_piece` is
    called after each thing that was put into the outbox. With `prepared` nothing is written: the prompt is read, and
    the future gets its keys and values.
    """

    generation: Generation
    sampler: Sampler
    outbox: "queue.SimpleQueue[Piece | EdgekitError]" = field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = field(default_factory=threading.Event)
    prepared: "Future[Snapshot] | None" = None
    lora: Lora | None = None
    guide: Guide | None = None
    on_piece: Callable[[], None] | None = None

    def put(self, item: Piece | EdgekitError) -> None:
        """Deliver it, and tell who wants to be told: an error of theirs is logged, and ends nothing."""
        self.outbox.put(item)
        if self.on_piece is not None:
            try:
                self.on_piece()
            except Exception:
                log.exception("Whoever waits for pieces failed when it was told of one")

    def end_unserved(self) -> None:
        """Say "cancelled" for a request whose turn never came."""
        timings = Timings(prompt_tokens=len(self.generation.prompt), prompt_s=0.0, generated_tokens=0, generate_s=0.0)
        self.end(Piece(text="", finish="cancelled", timings=timings))

    def end(self, last: Piece | EdgekitError) -> None:
        """Deliver the last piece, or the reason why there is none."""
        if self.prepared is None:
            self.put(last)
        elif self.prepared.done():
            return
        elif isinstance(last, EdgekitError):
            self.prepared.set_exception(last)
        else:
            self.prepared.cancel()


class QueuedAnswer:
    """A generation that waits, runs or has ended (records.Answer). One reader; `cancel` from any thread."""

    def __init__(self, job: Job, withdraw: Callable[[Job], None]) -> None:
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
        """Leave the queue at once, or stop within one step of the model; the last piece then says "cancelled".

        Harmless when the answer has ended.
        """
        self._job.cancelled.set()
        self._withdraw(self._job)

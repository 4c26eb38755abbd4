"""Several answers of one request as a single stream: n choices, several prompts, one phase after the other.

The engine's thread says for every piece whose it is, so the reader waits for all of them at once and asks none in
vain.
"""

import queue
import threading
from functools import partial

from device_agent.conversation.records import Spent
from device_agent.engine.records import Answer, Generation, ModelService, Piece
from edgekit.errors import EdgekitError, Overloaded, ShuttingDown

_NOBODY = -1


class Merged:
    """Answers that are read together, numbered from 0 in the order in which they were submitted.

    One thread submits and reads; any may cancel.
    """

    def __init__(self, model: ModelService) -> None:
        self._model = model
        self._answers: list[Answer] = []
        self._metered: list[bool] = []
        self._running: set[int] = set()
        self._ready: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._cancelled = False
        self._error: EdgekitError | None = None
        self._input = self._cached = self._output = 0

    def submit(self, generation: Generation, *, metered: bool = True) -> int:
        """Queue one more answer and return its number. `metered` says whether its prompt counts as input.

        Raises what `ModelService.submit` raises; those that were submitted before are then cancelled. After `cancel`,
        nothing is submitted any more.
        """
        with self._lock:
            try:
                return self._submit(generation, metered=metered)
            except BaseException:
                self._stop()
                raise

    def resume(self, generation: Generation) -> int | None:
        """Queue an answer that goes on where another ended: its prompt is not metered.

        None if the queue is full at the moment: what was begun should not fail for that. Else as `submit`.
        """
        with self._lock:
            try:
                return self._submit(generation, metered=False)
            except Overloaded:
                return None
            except BaseException:
                self._stop()
                raise

    def _submit(self, generation: Generation, *, metered: bool) -> int:
        number = len(self._answers)
        if self._cancelled:
            return number
        answer = self._model.submit(generation, on_piece=partial(self._ready.put, number))
        self._answers.append(answer)
        self._metered.append(metered)
        self._running.add(number)
        self._input += len(generation.prompt) if metered else 0
        return number

    def next(self, timeout_s: float | None = None) -> tuple[int, Piece] | None:
        """The next piece of any answer, with the answer's number.

        None if none came within `timeout_s`, after the last piece of all, or after `cancel`. An answer that fails
        makes all fail: raises EdgekitError, then and at every later call; ShuttingDown if one was cancelled and
        nobody here asked for it.
        """
        if self._error is not None:
            raise self._error
        while not self.ended:
            try:
                number = self._ready.get(timeout=timeout_s)
            except queue.Empty:
                return None
            if number != _NOBODY and (piece := self._take(number)) is not None:
                return number, piece
        return None

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to read of what was submitted."""
        return self._cancelled or not self._running

    @property
    def spent(self) -> Spent:
        """Tokens so far: of metered prompts, and of all answers. Those of pieces that nobody read count too."""
        with self._lock:
            if self._cancelled:
                self._drain()
            return Spent(input=self._input, cached=self._cached, output=self._output)

    def cancel(self) -> None:
        """Stop all answers within one token. Harmless when they have ended; from any thread."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        self._cancelled = True
        for number in self._running:
            self._answers[number].cancel()
        self._ready.put(_NOBODY)  # wakes a reader that waits for a piece

    def _take(self, number: int) -> Piece | None:
        """A piece of this answer. Raises as `next`; whatever is wrong with one answer ends all."""
        with self._lock:
            if self._cancelled:
                return None
            try:
                piece = self._answers[number].next(0)
                if piece is not None:
                    self._count(number, piece)
                    if piece.finish == "cancelled":
                        raise ShuttingDown("this answer was cut short.")
            except EdgekitError as problem:
                self._error = problem
                self._running.discard(number)
                self._stop()
                raise
            except BaseException:
                self._stop()
                raise
            return piece

    def _count(self, number: int, piece: Piece) -> None:
        self._output += len(piece.tokens)
        if piece.finish is None:
            return
        self._running.discard(number)
        if piece.timings is not None and self._metered[number]:
            self._cached += piece.timings.cached_tokens

    def _drain(self) -> None:
        """Count what had been written when the answers were cancelled."""
        while True:
            try:
                number = self._ready.get_nowait()
                piece = None if number == _NOBODY else self._answers[number].next(0)
            except queue.Empty:
                return
            except EdgekitError:
                continue  # it was cancelled anyway
            if piece is not None:
                self._count(number, piece)

"""THE MAIN PATH of a conversation: a request goes in, events come out.

phases.py    which generations answer it, and with which prompts (asking.py, tools/, edgekit/strategies.py)
merge.py     their answers as one stream of pieces
reading.py   pieces to events (thinking.py, tools/)
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from device_agent.conversation.merge import Merged
from device_agent.conversation.phases import Phase, Written, first_phases
from device_agent.conversation.records import ChatRequest, Event, Exchange, Spent
from device_agent.engine.records import ModelService, Piece
from edgekit.errors import InvalidRequest
from edgekit.strategies import Strategies, packaged

_RETRY_S = 0.25
"""After so long a phase is offered again that the full queue did not take."""


def start(model: ModelService, request: ChatRequest, *, strategies: Strategies | None = None) -> Exchange:
    """Have `model` answer. `strategies` are those that the request may name; the packaged ones if None.

    Raises InvalidRequest for an unknown strategy (`param` is "edgekit.strategy"), for tools or a grammar that cannot
    be; TemplateError; ContextOverflow; Overloaded and ShuttingDown. Nothing runs then.
    """
    exchange = Conversation(model)
    try:
        exchange.begin(first_phases(model, request, strategies or packaged()))
    except InvalidRequest as problem:
        if problem.param == "grammar" and request.grammar is None:  # it was made of the tools
            raise InvalidRequest(problem.problem, param="tools") from problem
        raise
    return exchange


@dataclass(slots=True)
class _Run:
    """A phase that is being written."""

    phase: Phase
    texts: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)


class Conversation:
    """A running answer (records.Exchange)."""

    def __init__(self, model: ModelService) -> None:
        self._merged = Merged(model)
        self._runs: dict[int, _Run] = {}
        self._events: deque[Event] = deque()
        self._refused: deque[Phase] = deque()
        self._stopped = threading.Event()
        self._reasoning_tokens = 0

    def begin(self, phases: Sequence[Phase]) -> None:
        """Submit the first phases. Raises what `ModelService.submit` raises; nothing runs then."""
        for at, phase in enumerate(phases):  # all have the same prompt: it counts once
            self._runs[self._merged.submit(phase.generation, metered=at == 0)] = _Run(phase)

    def next(self, timeout_s: float | None = None) -> Event | None:
        """As `Exchange`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.ended:
            if self._events:
                return self._events.popleft()
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._read(left_s) and left_s == 0:
                break
        return None

    def _read(self, timeout_s: float | None) -> bool:
        """Wait for a piece and read it, if one comes."""
        if self._refused:
            self._submit()
        if self._refused:
            timeout_s = _RETRY_S if timeout_s is None else min(timeout_s, _RETRY_S)
            if self._merged.ended:  # nothing else is running that could be waited for
                self._stopped.wait(timeout_s)
                return False
        found = self._merged.next(timeout_s)
        if found is None:
            return False
        try:
            self._take(*found)
        except BaseException:
            self.cancel()
            raise
        return True

    def _take(self, number: int, piece: Piece) -> None:
        run = self._runs[number]
        before = run.phase.reader.reasoning_tokens
        self._events += run.phase.reader.push(piece)
        self._reasoning_tokens += run.phase.reader.reasoning_tokens - before
        run.texts.append(piece.text)
        run.ids += piece.tokens
        if piece.finish is None:
            return
        del self._runs[number]
        marked = piece.stopped_by is not None
        written = Written(text="".join(run.texts), ids=tuple(run.ids), finish=piece.finish, marked=marked)
        self._refused += run.phase.after(written)
        self._submit()

    def _submit(self) -> None:
        """Begin the phases that follow, as far as the queue takes them."""
        while self._refused and (number := self._merged.resume(self._refused[0].generation)) is not None:
            self._runs[number] = _Run(self._refused.popleft())

    @property
    def ended(self) -> bool:
        """As `Exchange`."""
        return self._stopped.is_set() or (self._merged.ended and not self._refused and not self._events)

    @property
    def spent(self) -> Spent:
        """As `Exchange`."""
        spent = self._merged.spent
        return Spent(input=spent.input, cached=spent.cached, output=spent.output, reasoning=self._reasoning_tokens)

    def cancel(self) -> None:
        """As `Exchange`."""
        self._stopped.set()
        self._merged.cancel()

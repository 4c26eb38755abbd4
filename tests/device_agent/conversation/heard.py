"""What tests of conversations share: a request, and what was heard of its answer."""

from collections.abc import Callable, Sequence

from device_agent.conversation.records import ChatRequest, Ended, Event, Exchange, Said, Thought
from device_agent.engine.records import Generation, Piece
from edgekit.chat import Message
from edgekit.errors import Overloaded
from tests.fakes import FakeAnswer, FakeService

WAIT_S = 30.0
USER = Message(role="user", content="2 + 2?")
REQUEST = ChatRequest(messages=(USER,))
LONG = 4_000


def events(exchange: Exchange) -> list[Event]:
    found = []
    while (event := exchange.next(WAIT_S)) is not None:
        found.append(event)
    assert exchange.ended
    return found


def said(found: Sequence[Event], choice: int = 0) -> str:
    return "".join(event.text for event in found if isinstance(event, Said) and event.choice == choice)


def thought(found: Sequence[Event], choice: int = 0) -> str:
    return "".join(event.text for event in found if isinstance(event, Thought) and event.choice == choice)


def reasons(found: Sequence[Event]) -> dict[int, str]:
    return {event.choice: event.reason for event in found if isinstance(event, Ended)}


def prompts(service: FakeService) -> list[str]:
    return [service.text_of(generation.prompt) for generation in service.generations]


class Seats(FakeService):
    """Refuses the requests whose numbers are in `full`, counted from 0 over all that are offered."""

    def __init__(self, *full: int, scripts: Sequence[Sequence[Piece]] = (), context_tokens: int = LONG) -> None:
        super().__init__(scripts=scripts, context_tokens=context_tokens)
        self._full = full
        self.offered = 0

    def submit(self, generation: Generation, *, on_piece: Callable[[], None] | None = None) -> FakeAnswer:
        self.offered += 1
        if self.offered - 1 in self._full:
            raise Overloaded("1 request waits", 3)
        return super().submit(generation, on_piece=on_piece)

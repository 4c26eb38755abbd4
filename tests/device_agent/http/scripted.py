"""An exchange that says what a test wrote down."""

import threading
from collections.abc import Sequence

from device_agent.conversation.records import Ended, Event, Spent
from edgekit.errors import EdgekitError

SPENT = Spent(input=7, cached=3, output=5, reasoning=2)


class FakeExchange:
    """Gives out `events`, an error among them is raised; then nothing more comes unless the last choice has ended."""

    def __init__(self, *events: Event | EdgekitError | Exception | None, choices: int = 1) -> None:
        self._events = list(events)
        self._open = choices
        self.asked = 0
        self.cancelled = threading.Event()
        self.spent = SPENT

    def next(self, timeout_s: float | None = None) -> Event | None:
        self.asked += 1
        event = self._events.pop(0) if self._events else None
        if isinstance(event, Exception):
            raise event
        self._open -= isinstance(event, Ended)
        return event

    @property
    def ended(self) -> bool:
        return not self._open

    def cancel(self) -> None:
        self.cancelled.set()


def parts(raw: bytes) -> Sequence[bytes]:
    """Events of a stream's bytes, each with its blank line."""
    return [part + b"\n\n" for part in raw.split(b"\n\n") if part]

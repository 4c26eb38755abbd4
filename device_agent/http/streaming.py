"""A running exchange to what goes over the wire: all at once, or event by event in a client's dialect.

Both look at every event, and every `poll_s` while none comes, whether the client is still there, and give up when it
is not. They close the visit with what was spent.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from device_agent.conversation.records import Ended, Event, Exchange, Spent
from device_agent.http.settings import HttpSettings
from device_agent.http.visit import Visit
from edgekit.errors import EdgekitError, ServerError

Gone = Callable[[], bool]
"""True once the client has closed its connection."""

_log = logging.getLogger(__name__)


class ClientGone(Exception):
    """Nobody waits for this answer any more."""


class Wire(Protocol):
    """How one dialect writes a stream. Each method returns the bytes of no, one or several server-sent events."""

    def opening(self) -> bytes:
        """What goes out before the first token."""

    def event(self, event: Event) -> bytes:
        """What says this."""

    def closing(self, spent: Spent) -> bytes:
        """What goes out after every choice has ended."""

    def failed(self, problem: EdgekitError) -> bytes:
        """What says that the answer broke off; the status line has gone out long ago."""

    def ping(self) -> bytes:
        """What keeps the connection alive, and what clients skip."""


def gather(exchange: Exchange, visit: Visit, *, gone: Gone, settings: HttpSettings) -> list[Event]:
    """All events, waited for. Raises ClientGone, ShuttingDown or what the engine raised; closes the visit."""
    found: list[Event] = []
    finish = "error"
    try:
        for event in _events(exchange, gone, settings.poll_s):
            if event is not None:
                visit.heard(event)
                found.append(event)
        finish = _finish(found)
    except ClientGone:
        finish = "cancelled"
        raise
    finally:
        exchange.cancel()
        visit.close(exchange.spent, finish=finish)
    return found


def stream(exchange: Exchange, wire: Wire, visit: Visit, *, gone: Gone, settings: HttpSettings) -> Iterator[bytes]:
    """The answer as it comes. An error becomes the last event. Closes the visit also if it is closed itself."""
    finish = "cancelled"
    try:
        yield wire.opening() or wire.ping()  # bytes at once: the client learns that it is accepted
        ended: list[Event] = []
        for event in _heard(exchange, gone, settings):
            if event is None:
                yield wire.ping()
                continue
            visit.heard(event)
            if isinstance(event, Ended):
                ended.append(event)
            if said := wire.event(event):
                yield said
        finish = _finish(ended)
        yield wire.closing(exchange.spent)
    except ClientGone:
        return
    except EdgekitError as problem:
        finish = "error"
        _log.warning("an answer failed while it was streamed: %s", problem)
        yield wire.failed(problem)
    except Exception:  # noqa: BLE001 - a bug; the client must hear of it, and the server goes on
        finish = "error"
        _log.exception("bug: an answer failed while it was streamed")
        yield wire.failed(ServerError("an internal error, described in its log."))
    finally:
        exchange.cancel()
        visit.close(exchange.spent, finish=finish)


def _heard(exchange: Exchange, gone: Gone, settings: HttpSettings) -> Iterator[Event | None]:
    """Events, and None whenever the client has heard nothing for `heartbeat_s`."""
    turn_s = min(settings.poll_s, settings.heartbeat_s)
    silent_s = 0.0
    for event in _events(exchange, gone, turn_s):
        silent_s = 0.0 if event is not None else silent_s + turn_s
        if event is not None or silent_s >= settings.heartbeat_s:
            silent_s = 0.0
            yield event


def _events(exchange: Exchange, gone: Gone, poll_s: float) -> Iterator[Event | None]:
    """Events up to the last, and None for each `poll_s` without one."""
    while not exchange.ended:
        event = exchange.next(poll_s)
        if gone():
            raise ClientGone
        yield event


def _finish(events: list[Event]) -> str:
    """Why the first choice ended."""
    return next((event.reason for event in events if isinstance(event, Ended) and event.choice == 0), "error")

"""A running Answer to what goes over the wire: all at once, or as a stream of events.

Both look at every piece, and every `poll_s` while none comes, whether the client is still there, and give up when it
is not. Who started the answer (the route) cancels it.
"""

import logging
from collections.abc import Callable, Iterator

from device_agent.engine.records import Answer, FinishReason, Piece
from device_agent.http import sse
from device_agent.http.replies import Json, Reply, error
from device_agent.http.settings import HttpSettings
from edgekit.errors import EdgekitError, ServerError, ShuttingDown

Gone = Callable[[], bool]
"""True once the client has closed its connection."""

_log = logging.getLogger(__name__)


class ClientGone(Exception):
    """Nobody waits for this answer any more."""


def whole(answer: Answer, reply: Reply, *, prompt_tokens: int, gone: Gone, settings: HttpSettings) -> Json:
    """Wait for the end of the answer. Raises ClientGone, ShuttingDown or what the engine raised."""
    pieces = [piece for piece in _pieces(answer, gone, settings.poll_s) if piece is not None]
    return reply.whole(
        "".join(piece.text for piece in pieces),
        finish=_reason(pieces[-1]),
        timings=pieces[-1].timings,
        prompt_tokens=prompt_tokens,
        completion_tokens=sum(len(piece.tokens) for piece in pieces),
    )


def events(answer: Answer, reply: Reply, *, prompt_tokens: int, gone: Gone, settings: HttpSettings) -> Iterator[bytes]:
    """The answer as server-sent events. An error becomes the last event: the status line has gone out long ago."""
    try:
        yield from _events(answer, reply, prompt_tokens, gone, settings)
    except ClientGone:
        return
    except EdgekitError as problem:
        _log.warning("an answer failed while it was streamed: %s", problem)
        yield sse.event(error(problem))
    except Exception:  # noqa: BLE001 - a bug; the client must hear of it, and the server goes on
        _log.exception("bug: an answer failed while it was streamed")
        yield sse.event(error(ServerError("an internal error, described in its log.")))


def _events(answer: Answer, reply: Reply, prompt_tokens: int, gone: Gone, settings: HttpSettings) -> Iterator[bytes]:
    opening = reply.opening()
    # Bytes at once, even if the prompt takes long: the client learns that it is accepted, and headers leave.
    yield sse.PING if opening is None else sse.event(opening)
    silent_s = 0.0
    completion_tokens = cached_tokens = 0
    for piece in _pieces(answer, gone, min(settings.poll_s, settings.heartbeat_s)):
        if piece is None:
            silent_s += min(settings.poll_s, settings.heartbeat_s)
            if silent_s >= settings.heartbeat_s:
                silent_s = 0.0
                yield sse.PING
            continue
        silent_s = 0.0
        completion_tokens += len(piece.tokens)
        if piece.text:
            yield sse.event(reply.text(piece.text))
        if piece.finish:
            cached_tokens = piece.timings.cached_tokens if piece.timings else 0
            yield sse.event(reply.closing(_reason(piece), piece.timings))
    if reply.with_usage:
        yield sse.event(reply.usage(prompt_tokens, completion_tokens, cached_tokens=cached_tokens))
    yield sse.DONE


def _pieces(answer: Answer, gone: Gone, poll_s: float) -> Iterator[Piece | None]:
    """Pieces up to the last, and None for each `poll_s` without one."""
    while True:
        piece = answer.next(poll_s)
        if gone():
            raise ClientGone
        yield piece
        if piece is not None and piece.finish:
            return


def _reason(last: Piece) -> FinishReason:
    """Why it ended. A client that is still here did not cancel; so the agent did, because it stops."""
    if last.finish is None or last.finish == "cancelled":
        raise ShuttingDown("this answer was cut short.")
    return last.finish

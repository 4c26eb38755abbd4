"""Events to bytes, without a server: heartbeats, clients that leave, errors on the way, and the books."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.conversation.records import Ended, Event, Said
from device_agent.http import HttpSettings, streaming
from device_agent.http.replies import sse
from device_agent.http.replies.chat import ChatReply
from device_agent.http.replies.common import Envelope
from device_agent.http.replies.spelling import Speller
from device_agent.http.services import Caller
from device_agent.http.visit import Visit
from edgekit.errors import Overloaded
from tests.device_agent.http.scripted import SPENT, FakeExchange
from tests.fakes import FakeBook, FakeGate, FakeModels, FakeService, services

SETTINGS = HttpSettings(poll_s=0.001, heartbeat_s=0.004)
WIRE = ChatReply(
    envelope=Envelope(id="chatcmpl-1", created=1, model="tiny", fingerprint="fp_1"),
    choices=1,
    speller=Speller(FakeService()),
)
END = Ended(reason="stop")


class Room:
    """A visit, and what becomes of it."""

    def __init__(self) -> None:
        self.models, self.gate, self.book = FakeModels(), FakeGate(), FakeBook()
        self.visit = Visit(services(models=self.models, gate=self.gate, book=self.book), Caller(), "chat", "tiny")

    def stream(self, exchange: FakeExchange, *, gone: Any = lambda: False) -> Any:
        return streaming.stream(exchange, WIRE, self.visit, gone=gone, settings=SETTINGS)

    def gather(self, exchange: FakeExchange, *, gone: Any = lambda: False) -> list[Event]:
        return streaming.gather(exchange, self.visit, gone=gone, settings=SETTINGS)

    @property
    def finish(self) -> str:
        """What the books say; nothing may be held any more."""
        assert (self.models.held, self.gate.admitted) == ([], [])
        (page,) = self.book.pages
        assert (page.input_tokens, page.cached_tokens, page.output_tokens) == (7, 3, 5)
        return page.finish


def test_a_silent_stream_sends_comments_until_an_event_comes() -> None:
    """Four polls make one heartbeat: the third poll without an event is still silent."""
    room, exchange = Room(), FakeExchange(*[None] * 9, Said(text="a"), END)
    stream = room.stream(exchange)
    assert b"assistant" in next(stream)
    assert (next(stream), exchange.asked) == (sse.PING, 4)
    assert (next(stream), exchange.asked) == (sse.PING, 8)
    rest = list(stream)
    assert b'"content":"a"' in rest[0]
    assert rest[-1] == sse.DONE
    assert room.finish == "stop"


def test_something_leaves_at_once_even_if_the_dialect_has_no_opening() -> None:
    class Shy:
        def opening(self) -> bytes:
            return b""

        def __getattr__(self, name: str) -> Any:
            return getattr(WIRE, name)

    stream = streaming.stream(FakeExchange(), Shy(), Room().visit, gone=lambda: False, settings=SETTINGS)
    assert next(stream) == sse.PING


def test_a_stream_ends_silently_when_the_client_is_gone() -> None:
    room, gone = Room(), iter([False, False, True])
    exchange = FakeExchange()
    assert len(list(itertools.islice(room.stream(exchange, gone=lambda: next(gone)), 10))) == 1
    assert exchange.cancelled.is_set()
    assert room.finish == "cancelled"


def test_a_stream_that_is_closed_between_events_is_cancelled() -> None:
    room, exchange = Room(), FakeExchange(Said(text="a"))
    stream = room.stream(exchange)
    next(stream), next(stream)
    stream.close()
    assert exchange.cancelled.is_set()
    assert room.finish == "cancelled"


@pytest.mark.parametrize(
    ("problem", "kind"), [(Overloaded("too hot"), "too hot"), (ZeroDivisionError("secret"), "internal error")]
)
def test_an_error_is_the_last_event(problem: Exception, kind: str) -> None:
    room = Room()
    *_, text, last = room.stream(FakeExchange(Said(text="a"), problem))
    assert b'"content":"a"' in text
    assert kind in json.loads(last.removeprefix(b"data: "))["error"]["message"]
    assert b"secret" not in last
    assert room.finish == "error"


def test_a_whole_answer_is_given_up_within_one_event_of_the_clients_leaving() -> None:
    room, exchange = Room(), FakeExchange(Said(text="a"), Said(text="b"), Said(text="c"), END)
    gone = iter([False, True])
    with pytest.raises(streaming.ClientGone):
        room.gather(exchange, gone=lambda: next(gone))
    assert exchange.asked == 2
    assert exchange.cancelled.is_set()
    assert room.finish == "cancelled"


def test_a_whole_answer_that_fails_is_on_the_books_too() -> None:
    room = Room()
    with pytest.raises(Overloaded):
        room.gather(FakeExchange(Said(text="a"), Overloaded("too hot")))
    assert room.finish == "error"


def test_an_answer_has_ended_when_all_its_choices_have() -> None:
    room = Room()
    ends: list[Event] = [Ended(reason="length", choice=1), Said(text="a"), Ended(reason="stop", choice=0)]
    assert room.gather(FakeExchange(None, *ends, choices=2)) == ends
    assert room.finish == "stop"
    assert room.book.pages[0].first_token_s is not None


def test_only_the_first_end_of_a_visit_counts() -> None:
    room = Room()
    room.visit.close(SPENT, finish="length")
    room.visit.close(SPENT, finish="error")
    assert room.finish == "length"


@given(st.text())
def test_an_event_is_one_line_of_ascii(text: str) -> None:
    raw = sse.event({"text": text})
    assert raw.isascii()
    assert raw.splitlines() == [raw[:-2], b""]
    assert len(raw.decode().splitlines()) == 2
    assert json.loads(raw.removeprefix(b"data: ")) == {"text": text}

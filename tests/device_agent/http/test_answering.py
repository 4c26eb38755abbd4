"""Pieces to events, without a server: heartbeats, clients that leave, and the bytes of an event."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.records import Piece
from device_agent.http import HttpSettings, answering, sse
from device_agent.http.replies import Reply
from tests.fakes import FakeAnswer, script

REPLY = Reply(kind="chat", id="chatcmpl-1", created=1, model="tiny", fingerprint="fp_1")
SETTINGS = HttpSettings(poll_s=0.001, heartbeat_s=0.004)


def test_a_silent_stream_sends_comments_until_a_piece_comes() -> None:
    answer = FakeAnswer()
    stream = answering.events(answer, REPLY, prompt_tokens=1, gone=lambda: False, settings=SETTINGS)
    assert b"assistant" in next(stream)
    assert [next(stream), next(stream)] == [sse.PING, sse.PING]
    answer.push(*script("a"))
    rest = list(stream)
    assert b'"content":"a"' in rest[0]
    assert rest[-1] == sse.DONE


def test_polls_shorter_than_a_heartbeat_send_nothing() -> None:
    """Four polls make one heartbeat: the third poll without a piece is still silent."""
    polls = 0

    class Slow(FakeAnswer):
        def next(self, timeout_s: float | None = None) -> Piece | None:
            nonlocal polls
            polls += 1
            return super().next(timeout_s)

    stream = answering.events(Slow(), REPLY, prompt_tokens=1, gone=lambda: False, settings=SETTINGS)
    next(stream)
    assert next(stream) == sse.PING
    assert polls == 4


def test_a_stream_ends_silently_when_the_client_is_gone() -> None:
    gone = iter([False, False, True])
    stream = answering.events(FakeAnswer(), REPLY, prompt_tokens=1, gone=lambda: next(gone), settings=SETTINGS)
    assert len(list(itertools.islice(stream, 10))) == 1


def test_a_whole_answer_is_given_up_within_one_piece_of_the_clients_leaving() -> None:
    answer = FakeAnswer()
    answer.push(*script("a", "b", "c"))
    gone = iter([False, True])
    with pytest.raises(answering.ClientGone):
        answering.whole(answer, REPLY, prompt_tokens=1, gone=lambda: next(gone), settings=SETTINGS)
    assert answer.next(0) == Piece(text="c", tokens=(12,))


@given(st.text())
def test_an_event_is_one_line_of_ascii(text: str) -> None:
    raw = sse.event({"text": text})
    assert raw.isascii()
    assert raw.splitlines() == [raw[:-2], b""]
    assert len(raw.decode().splitlines()) == 2
    assert json.loads(raw.removeprefix(b"data: ")) == {"text": text}

import threading

import pytest

from device_agent.conversation.merge import Merged
from device_agent.conversation.records import Spent
from device_agent.engine.records import Generation, ModelService, Piece
from edgekit.errors import CorruptBundle, Overloaded, ShuttingDown
from tests.fakes import TIMINGS, FakeAnswer, FakeService, script

WAIT_S = 30.0
END = Piece(text="", tokens=(2,), finish="stop", timings=TIMINGS)


def generation(text: str = "abc") -> Generation:
    return Generation(prompt=tuple(map(ord, text)))


def running(service: FakeService, count: int) -> tuple[Merged, list[FakeAnswer]]:
    merged = Merged(service)
    for _ in range(count):
        merged.submit(generation())
    return merged, [service.answers.get(timeout=WAIT_S) for _ in range(count)]


class Full(FakeService):
    """Takes one request."""

    def submit(self, generation: Generation, *, on_piece: object = None) -> FakeAnswer:
        if self.generations:
            raise Overloaded("1 request waits", 3)
        return super().submit(generation)


def test_the_fake_is_a_model_service() -> None:
    service: ModelService = FakeService()
    assert service.text_of(service.text_prompt("abc")) == "abc"


def test_pieces_come_in_the_order_in_which_they_were_written_with_their_answers_number() -> None:
    merged, (one, two) = running(FakeService(), 2)
    two.push(Piece(text="b", tokens=(1,)))
    one.push(Piece(text="a", tokens=(1,)), END)
    two.push(END)
    found = [merged.next(WAIT_S) for _ in range(4)]
    assert [(number, piece.text, piece.finish) for number, piece in filter(None, found)] == [
        (1, "b", None),
        (0, "a", None),
        (0, "", "stop"),
        (1, "", "stop"),
    ]
    assert merged.ended
    assert merged.next() is None


def test_it_has_not_ended_while_one_answer_runs() -> None:
    merged, (one, two) = running(FakeService(), 2)
    one.push(END)
    assert merged.next(WAIT_S) == (0, END)
    ended = [merged.ended]
    assert merged.next(0) is None
    two.push(END)
    assert merged.next(WAIT_S) == (1, END)
    assert [*ended, merged.ended] == [False, True]


def test_an_answer_may_follow_when_another_has_ended() -> None:
    merged = Merged(FakeService(scripts=[script("a"), script("b")]))
    assert merged.submit(generation()) == 0
    assert [merged.next(WAIT_S), merged.next(WAIT_S), merged.next(WAIT_S)] == [
        *((0, script("a")[0]), (0, script("a")[1])),
        None,
    ]
    assert merged.submit(generation(), metered=False) == 1
    assert merged.next(WAIT_S) == (1, script("b")[0])


def test_a_piece_that_comes_while_the_reader_waits_wakes_it() -> None:
    merged, (answer,) = running(FakeService(), 1)
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(merged.next()))
    reader.start()
    answer.push(END)
    reader.join(WAIT_S)
    assert found == [(0, END)]


def test_tokens_are_counted_of_metered_prompts_and_of_all_answers() -> None:
    merged = Merged(FakeService(replies=script("a", "b")))
    merged.submit(generation("12345"))
    merged.submit(generation("12345"), metered=False)
    merged.submit(generation("123"))
    assert merged.spent == Spent(input=8)
    while not merged.ended:
        merged.next(WAIT_S)
    assert merged.spent == Spent(input=8, cached=2 * TIMINGS.cached_tokens, output=9)


def test_a_failed_answer_fails_all_and_stops_the_others() -> None:
    merged, (one, two) = running(FakeService(), 2)
    one.push(CorruptBundle("x", "broken"))
    for _ in range(2):  # and it stays so
        with pytest.raises(CorruptBundle):
            merged.next(WAIT_S)
    assert two.cancelled.is_set()
    assert merged.ended


def test_a_bug_of_the_engine_stops_the_others_too() -> None:
    merged, (one, two) = running(FakeService(), 2)
    one.push(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        merged.next(WAIT_S)
    assert two.cancelled.is_set()


def test_an_answer_that_the_agent_cancelled_says_that_it_stops() -> None:
    merged, (one, two) = running(FakeService(), 2)
    one.cancel()
    with pytest.raises(ShuttingDown):
        merged.next(WAIT_S)
    assert two.cancelled.is_set()


def test_if_one_cannot_be_submitted_those_before_it_are_cancelled() -> None:
    service = Full()
    merged = Merged(service)
    merged.submit(generation())
    with pytest.raises(Overloaded):
        merged.submit(generation())
    assert service.answers.get(timeout=WAIT_S).cancelled.is_set()
    assert merged.ended


def test_cancelling_stops_every_answer_and_wakes_the_reader() -> None:
    merged, answers = running(FakeService(), 3)
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(merged.next()))
    reader.start()
    merged.cancel()
    reader.join(WAIT_S)
    assert found == [None]
    assert merged.ended
    assert all(answer.cancelled.is_set() for answer in answers)


def test_tokens_that_were_written_before_a_cancel_count_though_nobody_read_them() -> None:
    merged, (one, two) = running(FakeService(), 2)
    one.push(Piece(text="a", tokens=(1, 2)))
    assert merged.next(WAIT_S)
    one.push(Piece(text="b", tokens=(3,)))
    two.push(CorruptBundle("x", "broken"))
    merged.cancel()
    assert merged.next(WAIT_S) is None
    assert merged.spent.output == 3


def test_nothing_is_submitted_after_a_cancel() -> None:
    service = FakeService()
    merged = Merged(service)
    merged.cancel()
    merged.submit(generation())
    assert not service.generations
    assert merged.next() is None


def test_cancelling_what_has_ended_is_harmless() -> None:
    merged, (answer,) = running(FakeService(replies=script("a")), 1)
    while not merged.ended:
        merged.next(WAIT_S)
    spent = merged.spent
    merged.cancel()
    assert not answer.cancelled.is_set()
    assert merged.spent == spent

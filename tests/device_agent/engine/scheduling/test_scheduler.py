import dataclasses
import logging
import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from device_agent.engine.grammars.guide import Guide
from device_agent.engine.records import (
    MOST_TOP_LOGPROBS,
    Answer,
    EngineSettings,
    Generation,
    Grammar,
    Piece,
    Sampling,
)
from device_agent.engine.rows import Rows
from device_agent.engine.scheduling.answers import QueuedAnswer
from device_agent.engine.scheduling.scheduler import MAX_RETRY_AFTER_S, Scheduler
from edgekit.errors import (
    ContextOverflow,
    EdgekitError,
    InvalidRequest,
    Overloaded,
    ServerError,
    ShuttingDown,
)
from tests.device_agent.engine.scripted import END, LANGUAGE, VOCAB, Clock, FakeRows, Says, saying, scripted

PROMPT = Generation(prompt=(1,))


class Gate:
    """Lets a test stop the model's thread inside of a step, see that it is there, and let it go on."""

    def __init__(self, rows: FakeRows) -> None:
        self.inside = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.open = False
        rows.before_step = self.wait

    def wait(self) -> None:
        if not self.open:
            self.inside.release()
            self.go.acquire()

    def reached(self) -> None:
        self.inside.acquire()

    def step(self) -> None:
        self.go.release()

    def leave_open(self) -> None:
        self.open = True
        self.go.release()


def no_reload(threads: int) -> Rows:
    raise AssertionError(f"the model was loaded again, on {threads} threads")


class Bench:
    """A scheduler whose model answers "ab", one byte a step; one slot, unless the settings say otherwise."""

    def __init__(
        self,
        says: Says | None = None,
        *,
        settings: EngineSettings | None = None,
        open_rows: Callable[[int], Rows] = no_reload,
    ) -> None:
        self.clock = Clock()
        self.rows = FakeRows(says or saying("ab"), context_tokens=100, cost=lambda _: 0.0)
        self.gate = Gate(self.rows)
        settings = settings or EngineSettings(slots=1, queue_limit=4, threads=1)
        self.scheduler = Scheduler(self.rows, open_rows, LANGUAGE, settings, clock=self.clock)

    def running(self) -> QueuedAnswer:
        """An answer whose first step is held at the gate."""
        answer = self.scheduler.submit(PROMPT)
        self.gate.reached()
        return answer


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.scheduler.start()
    yield bench
    bench.gate.leave_open()
    bench.scheduler.close(finish=False)


def read(answer: Answer) -> tuple[str, str | None]:
    found = list(answer)
    return "".join(piece.text for piece in found), found[-1].finish


def in_background(scheduler: Scheduler, *, finish: bool) -> threading.Thread:
    thread = threading.Thread(target=lambda: scheduler.close(finish=finish))
    thread.start()
    return thread


def until_closing(scheduler: Scheduler) -> None:
    """Spin until the other thread's `close` has taken hold; the running generation keeps it from returning."""
    while True:
        try:
            scheduler.submit(PROMPT).cancel()
        except ShuttingDown:
            return


def test_an_answer_comes_back_in_pieces(bench: Bench) -> None:
    bench.gate.leave_open()
    answer = bench.scheduler.submit(PROMPT)
    found = list(answer)
    assert [piece.text for piece in found] == ["a", "b", ""]
    assert [piece.tokens for piece in found] == [(0x61,), (0x62,), (END,)]
    assert found[-1].finish == "stop"
    assert found[-1].timings
    assert found[-1].timings.prompt_tokens == 1


def test_a_piece_can_be_read_while_the_next_is_computed(bench: Bench) -> None:
    answer = bench.running()
    bench.gate.step()
    bench.gate.reached()
    assert answer.next() == Piece(text="a", tokens=(0x61,))
    assert answer.next(timeout_s=0) is None


def test_after_the_last_piece_there_is_nothing_to_wait_for(bench: Bench) -> None:
    bench.gate.leave_open()
    answer = bench.scheduler.submit(PROMPT)
    assert read(answer) == ("ab", "stop")
    assert answer.next() is None
    assert list(answer) == []


def test_with_one_slot_requests_are_served_one_at_a_time_in_order(bench: Bench) -> None:
    first = bench.running()
    others = [bench.scheduler.submit(Generation(prompt=(n,))) for n in (2, 3)]
    assert bench.scheduler.busy
    assert bench.scheduler.depth() == 2
    bench.gate.leave_open()
    assert [read(answer) for answer in (first, *others)] == [("ab", "stop")] * 3
    assert [ids for ids in bench.rows.fed if ids[0] < 10] == [(1,), (2,), (3,)]
    assert bench.scheduler.depth() == 0


def test_the_scheduler_is_busy_only_while_an_answer_is_made(bench: Bench) -> None:
    before, answer, during = bench.scheduler.busy, bench.running(), bench.scheduler.busy
    assert (before, during) == (False, True)
    bench.gate.leave_open()
    list(answer)
    while bench.scheduler.busy:  # until the thread, which delivered the last piece, asks for more work
        pass


def test_many_threads_can_submit(bench: Bench) -> None:
    bench.gate.leave_open()
    results: list[tuple[str, str | None]] = []
    together = threading.Barrier(4)

    def ask() -> None:
        together.wait()
        results.append(read(bench.scheduler.submit(PROMPT)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [("ab", "stop")] * 4


def test_a_reader_who_does_not_read_holds_up_nobody(bench: Bench) -> None:
    bench.gate.leave_open()
    unread = bench.scheduler.submit(PROMPT)
    assert read(bench.scheduler.submit(PROMPT)) == ("ab", "stop")
    assert read(unread) == ("ab", "stop")


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(bench: Bench) -> None:
    bench.running()
    for _ in range(4):
        bench.scheduler.submit(PROMPT)
    with pytest.raises(Overloaded, match="4 requests are waiting") as caught:
        bench.scheduler.submit(PROMPT)
    assert caught.value.retry_after_s == 1
    assert bench.scheduler.depth() == 4


@pytest.mark.parametrize(("answer_s", "retry_after_s"), [(0.01, 1), (6.2, 7), (3600.0, MAX_RETRY_AFTER_S)])
def test_a_refused_client_is_told_to_wait_for_about_one_answer(answer_s: float, retry_after_s: int) -> None:
    bench = Bench(settings=EngineSettings(slots=1, queue_limit=1))
    bench.scheduler.start()
    bench.running()
    bench.clock.now += answer_s
    second = bench.scheduler.submit(PROMPT)
    for _ in range(3):  # the first answer's own steps
        bench.gate.step()
        bench.gate.reached()  # the third time it is the second answer's first step
    bench.scheduler.submit(PROMPT)
    with pytest.raises(Overloaded) as caught:
        bench.scheduler.submit(PROMPT)
    bench.gate.leave_open()
    bench.scheduler.close(finish=False)
    assert caught.value.retry_after_s == retry_after_s
    assert list(second)


REFUSED: dict[str, tuple[Generation, type[EdgekitError], str | None]] = {
    "empty prompt": (Generation(prompt=()), InvalidRequest, "prompt"),
    "id past the vocabulary": (Generation(prompt=(1, VOCAB)), InvalidRequest, "prompt"),
    "negative id": (Generation(prompt=(1, -1)), InvalidRequest, "prompt"),
    "max_tokens 0": (Generation(prompt=(1,), max_tokens=0), InvalidRequest, "max_tokens"),
    "empty stop string": (Generation(prompt=(1,), stop=("",)), InvalidRequest, "stop"),
    "sampling out of range": (Generation(prompt=(1,), sampling=Sampling(top_p=2)), InvalidRequest, "top_p"),
    "prompt as long as the context": (Generation(prompt=(1,) * 100), ContextOverflow, "messages"),
}


@pytest.mark.parametrize(("generation", "error", "param"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_request_is_refused_before_it_is_queued(
    bench: Bench, generation: Generation, error: type[EdgekitError], param: str | None
) -> None:
    with pytest.raises(error) as caught:
        bench.scheduler.submit(generation)
    assert getattr(caught.value, "param", None) == param
    assert bench.scheduler.depth() == 0
    assert not bench.rows.steps


def test_a_running_answer_stops_within_one_token(bench: Bench) -> None:
    answer = bench.running()
    answer.cancel()
    bench.gate.leave_open()
    assert read(answer) == ("a", "cancelled")
    assert len(bench.rows.steps) == 1


def test_a_long_prompt_stops_within_one_chunk() -> None:
    bench = Bench(settings=EngineSettings(slots=1, chunk_tokens=4))
    bench.scheduler.start()
    answer = bench.scheduler.submit(Generation(prompt=tuple(range(40))))
    bench.gate.reached()
    answer.cancel()
    bench.gate.leave_open()
    assert read(answer) == ("", "cancelled")
    bench.scheduler.close(finish=True)
    assert bench.rows.fed == [(0, 1, 2, 3)]


def test_a_waiting_request_leaves_the_queue_at_once(bench: Bench) -> None:
    running, waiting, last = bench.running(), bench.scheduler.submit(PROMPT), bench.scheduler.submit(PROMPT)
    waiting.cancel()
    assert bench.scheduler.depth() == 1
    piece = waiting.next(timeout_s=0)  # while the model is still busy with the first
    assert piece
    assert (piece.finish, piece.text, piece.tokens) == ("cancelled", "", ())
    assert piece.timings
    assert (piece.timings.prompt_tokens, piece.timings.generated_tokens) == (1, 0)
    bench.gate.leave_open()
    assert [read(running), read(last)] == [("ab", "stop")] * 2


def test_cancelling_twice_or_after_the_end_is_harmless(bench: Bench) -> None:
    running, waiting = bench.running(), bench.scheduler.submit(PROMPT)
    waiting.cancel()
    waiting.cancel()
    bench.gate.leave_open()
    assert read(running) == ("ab", "stop")
    running.cancel()
    assert len(list(waiting)) == 1
    assert read(bench.scheduler.submit(PROMPT)) == ("ab", "stop")


def test_an_unexpected_failure_reaches_its_reader_and_the_log_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[int | Exception] = [0x61, ZeroDivisionError("kernel")]
    bench = Bench(lambda text: (scripted(*errors) if text[0] == 1 else saying("ok"))(text))
    bench.scheduler.start()
    bench.gate.leave_open()
    with caplog.at_level(logging.ERROR):
        failing, fine = bench.scheduler.submit(PROMPT), bench.scheduler.submit(Generation(prompt=(2,)))
        assert failing.next() == Piece(text="a", tokens=(0x61,))
        for _ in range(2):  # a reader who asks again is not left waiting
            with pytest.raises(ServerError, match="log has its traceback"):
                failing.next()
        assert read(fine) == ("ok", "stop")
        bench.scheduler.close(finish=True)
    (record,) = caplog.records
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


def test_an_error_of_our_own_reaches_its_reader_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    error = ServerError("the disk is on fire")
    bench = Bench(lambda text: (scripted(error) if text[0] == 1 else saying("ok"))(text))
    bench.scheduler.start()
    bench.gate.leave_open()
    with pytest.raises(ServerError) as caught:
        list(bench.scheduler.submit(PROMPT))
    assert caught.value is error
    assert read(bench.scheduler.submit(Generation(prompt=(2,)))) == ("ok", "stop")
    bench.scheduler.close(finish=True)
    assert not caplog.records


def test_closing_patiently_serves_everybody_first(bench: Bench) -> None:
    answers = [bench.running(), bench.scheduler.submit(PROMPT)]
    closing = in_background(bench.scheduler, finish=True)
    until_closing(bench.scheduler)
    bench.gate.leave_open()
    closing.join()
    assert [read(answer) for answer in answers] == [("ab", "stop")] * 2


def test_closing_returns_when_everything_is_done(bench: Bench) -> None:
    bench.gate.leave_open()
    answers = [bench.scheduler.submit(PROMPT) for _ in range(3)]
    bench.scheduler.close(finish=True)
    assert len(bench.rows.steps) == 9
    assert not bench.scheduler.busy
    assert [read(answer) for answer in answers] == [("ab", "stop")] * 3


def test_closing_impatiently_cancels_everybody(bench: Bench) -> None:
    running, waiting = bench.running(), bench.scheduler.submit(PROMPT)
    closing = in_background(bench.scheduler, finish=False)
    assert read(waiting) == ("", "cancelled")
    bench.gate.leave_open()
    closing.join()
    assert read(running) == ("a", "cancelled")
    assert len(bench.rows.steps) == 1


def test_an_impatient_close_cuts_a_patient_one_short(bench: Bench) -> None:
    running, waiting = bench.running(), bench.scheduler.submit(PROMPT)
    patient = in_background(bench.scheduler, finish=True)
    until_closing(bench.scheduler)
    impatient = in_background(bench.scheduler, finish=False)
    assert read(waiting) == ("", "cancelled")
    bench.gate.leave_open()
    patient.join()
    impatient.join()
    assert read(running) == ("a", "cancelled")


@pytest.mark.parametrize("finish", [True, False])
def test_after_closing_nothing_is_taken_and_closing_again_is_harmless(finish: bool) -> None:
    scheduler = Bench().scheduler
    scheduler.start()
    scheduler.close(finish=finish)
    scheduler.close(finish=finish)
    with pytest.raises(ShuttingDown):
        scheduler.submit(PROMPT)


@pytest.mark.parametrize("finish", [True, False])
def test_closing_before_starting_leaves_no_reader_waiting(finish: bool) -> None:
    scheduler = Bench().scheduler
    answer = scheduler.submit(PROMPT)
    scheduler.close(finish=finish)
    assert read(answer) == ("", "cancelled")


def test_requests_submitted_before_the_start_are_served(bench: Bench) -> None:
    early = Bench()
    answer = early.scheduler.submit(PROMPT)
    early.gate.leave_open()
    early.scheduler.start()
    assert read(answer) == ("ab", "stop")
    early.scheduler.close(finish=True)
    assert bench.scheduler.depth() == 0


def test_the_same_seed_gives_the_same_answer_whatever_came_before(bench: Bench) -> None:
    bench.gate.leave_open()
    seeded = Generation(prompt=(1,), sampling=Sampling(seed=11, temperature=50), max_tokens=1)
    answers = [bench.scheduler.submit(seeded) for _ in range(3)]
    ids = [[i for piece in answer for i in piece.tokens] for answer in answers]
    assert ids[0] == ids[1] == ids[2]


# --- who wants to be told -------------------------------------------------------------------


def test_word_comes_after_each_piece(bench: Bench) -> None:
    told: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
    answers: list[QueuedAnswer] = []
    first = bench.running()
    answers.append(bench.scheduler.submit(PROMPT, on_piece=lambda: told.put(answers[0].next(timeout_s=0))))
    bench.gate.leave_open()
    assert read(first) == ("ab", "stop")
    found = [told.get() for _ in range(3)]
    assert [piece and piece.text for piece in found] == ["a", "b", ""]


def test_word_comes_of_an_error_and_of_a_request_that_was_never_served(bench: Bench) -> None:
    told = threading.Semaphore(0)
    bench.running()
    waiting = [bench.scheduler.submit(PROMPT, on_piece=told.release) for _ in range(2)]
    waiting[0].cancel()
    told.acquire()
    closing = in_background(bench.scheduler, finish=False)
    told.acquire()
    bench.gate.leave_open()
    closing.join()
    assert [read(answer) for answer in waiting] == [("", "cancelled")] * 2


def test_whoever_is_told_may_use_the_scheduler_from_another_thread(bench: Bench) -> None:
    bench.running()

    def elsewhere() -> None:
        thread = threading.Thread(target=bench.scheduler.state)
        thread.start()
        thread.join()

    bench.scheduler.submit(PROMPT, on_piece=elsewhere).cancel()


def test_who_fails_when_told_is_logged_and_harms_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("not my day")

    bench.gate.leave_open()
    assert read(bench.scheduler.submit(PROMPT, on_piece=fail)) == ("ab", "stop")
    assert read(bench.scheduler.submit(PROMPT)) == ("ab", "stop")
    assert "not my day" in caplog.text


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("top", [-1, MOST_TOP_LOGPROBS + 1])
def test_too_many_logprobs_are_refused(bench: Bench, top: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bench.scheduler.submit(Generation(prompt=(1,), top_logprobs=top))
    assert caught.value.param == "top_logprobs"


def test_a_model_without_grammars_says_so(bench: Bench) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bench.scheduler.submit(Generation(prompt=(1,), grammar=Grammar("regex", "a")))
    assert caught.value.param == "grammar"


def test_a_grammar_is_compiled_by_who_submits_it() -> None:
    where: list[threading.Thread] = []

    def refuse(_: Grammar) -> Guide:
        where.append(threading.current_thread())
        raise InvalidRequest("no", param="grammar")

    language = dataclasses.replace(LANGUAGE, guide=refuse)
    scheduler = Scheduler(FakeRows(saying("ab")), no_reload, language, EngineSettings(slots=1, threads=1))
    with pytest.raises(InvalidRequest, match="no"):
        scheduler.submit(Generation(prompt=(1,), grammar=Grammar("regex", "a")))
    assert where == [threading.current_thread()]

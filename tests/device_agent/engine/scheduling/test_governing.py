"""What else the scheduler does: rest, change the threads, unload the model, and prepare what will be asked."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest

from device_agent.engine.records import EngineSettings, EngineState, Generation
from device_agent.engine.rows import Rows
from device_agent.engine.scheduling.scheduler import Scheduler
from edgekit.errors import CorruptBundle, EdgekitError, InvalidRequest, ServerError, ShuttingDown, UsageError
from tests.device_agent.engine.scheduling.test_scheduler import Gate, read
from tests.device_agent.engine.scripted import LANGUAGE, VOCAB, Clock, FakeRows, hashed, saying

PROMPT = Generation(prompt=(1,))
LONG = Generation(prompt=tuple(range(100, 200)), max_tokens=20)


class Models:
    """Loads the model as often as it is asked to, on gates if a test wants to stop it."""

    def __init__(self, *, cost: float = 0.0) -> None:
        self.clock = Clock()
        self.cost = cost
        self.threads: list[int] = []
        self.rows: list[FakeRows] = []
        self.error: Exception | None = None
        self.loading: Callable[[], None] = lambda: None

    def __call__(self, threads: int) -> Rows:
        self.threads.append(threads)
        self.loading()
        if self.error:
            raise self.error
        self.rows.append(FakeRows(hashed, clock=self.clock, cost=lambda _: self.cost))
        return self.rows[-1]


def started(models: Models, settings: EngineSettings) -> Scheduler:
    scheduler = Scheduler(models(settings.threads or 1), models, LANGUAGE, settings, clock=models.clock)
    scheduler.start()
    return scheduler


def until(scheduler: Scheduler, wanted: Callable[[EngineState], bool]) -> EngineState:
    """Spin until the thread is so far; the test hangs where it never gets there."""
    while not wanted(state := scheduler.state()):
        pass
    return state


def answer_of(scheduler: Scheduler, generation: Generation = LONG) -> list[int]:
    return [token for piece in scheduler.submit(generation) for token in piece.tokens]


def expected() -> list[int]:
    scheduler = started(Models(), EngineSettings(threads=1, prefix_bytes=0))
    ids = answer_of(scheduler)
    scheduler.close(finish=True)
    return ids


# --- duty -----------------------------------------------------------------------------------


def test_a_model_at_half_duty_rests_as_long_as_it_worked() -> None:
    models = Models(cost=3600.0)  # an hour for each step: whoever waits for the rest to end waits for ever
    scheduler = started(models, EngineSettings(threads=1, duty=0.5))
    answer = scheduler.submit(PROMPT)
    until(scheduler, lambda state: state.resting)
    assert len(models.rows[0].steps) == 1
    scheduler.set_duty(1.0)
    assert len(list(answer)) > 1
    scheduler.close(finish=True)


@pytest.mark.parametrize("end", ["cancel", "close", "close patiently"])
def test_a_rest_ends_for_whoever_wants_to_leave(end: str) -> None:
    scheduler = started(Models(cost=3600.0), EngineSettings(threads=1, duty=0.01))
    answer = scheduler.submit(Generation(prompt=(1,), max_tokens=5))
    until(scheduler, lambda state: state.resting)
    if end == "cancel":
        answer.cancel()
    else:
        scheduler.close(finish=end == "close patiently")
    assert list(answer)[-1].finish == ("length" if end == "close patiently" else "cancelled")
    scheduler.close(finish=False)


def test_a_rest_is_as_long_as_the_duty_says() -> None:
    models = Models(cost=0.001)
    scheduler = started(models, EngineSettings(threads=1, duty=0.5))
    assert len(answer_of(scheduler)) == 20, "rests of a millisecond end by themselves"
    scheduler.close(finish=True)


@pytest.mark.parametrize("duty", [0.0, -0.5, 1.01, float("nan")])
def test_an_impossible_duty_is_refused(duty: float) -> None:
    with pytest.raises(UsageError, match="duty"):
        Scheduler(FakeRows(hashed), Models(), LANGUAGE, EngineSettings(duty=duty))
    scheduler = Scheduler(FakeRows(hashed), Models(), LANGUAGE, EngineSettings())
    with pytest.raises(UsageError, match="duty"):
        scheduler.set_duty(duty)


@pytest.mark.parametrize("settings", [EngineSettings(threads=0), EngineSettings(slots=0)])
def test_less_than_one_thread_or_slot_is_refused(settings: EngineSettings) -> None:
    with pytest.raises(UsageError):
        Scheduler(FakeRows(hashed), Models(), LANGUAGE, settings)
    with pytest.raises(UsageError):
        Scheduler(FakeRows(hashed), Models(), LANGUAGE, EngineSettings()).set_threads(0)


# --- threads and memory ---------------------------------------------------------------------


def test_a_conversation_goes_on_when_the_threads_change() -> None:
    models = Models()
    scheduler = Scheduler(models(1), models, LANGUAGE, EngineSettings(threads=1))
    gate = Gate(models.rows[0])
    scheduler.start()
    answer = scheduler.submit(LONG)
    for _ in range(5):
        gate.reached()
        gate.step()
    gate.reached()
    scheduler.set_threads(3)
    gate.leave_open()
    assert [token for piece in answer for token in piece.tokens] == expected()
    assert models.threads == [1, 3]
    assert sum(len(ids) for ids in models.rows[1].fed) <= 15, "what was read is not read again"
    scheduler.close(finish=True)


def test_threads_of_an_idle_model_change_at_once() -> None:
    models = Models()
    scheduler = started(models, EngineSettings(threads=1))
    scheduler.set_threads(2)
    while models.threads != [1, 2]:
        pass
    assert scheduler.state().threads == 2
    scheduler.set_threads(2)
    assert answer_of(scheduler) == expected()
    assert models.threads == [1, 2]
    scheduler.close(finish=True)


def test_an_idle_model_leaves_memory_and_comes_back_with_what_it_knew() -> None:
    models = Models()
    scheduler = started(models, EngineSettings(threads=1, idle_unload_s=0.0))
    until(scheduler, lambda state: not state.loaded)
    first = answer_of(scheduler)
    state = until(scheduler, lambda state: not state.loaded)
    assert (state.running, state.cached_entries) == (0, 1)
    assert answer_of(scheduler) == first
    until(scheduler, lambda state: not state.loaded)
    assert scheduler.state().cached_tokens == 99
    assert models.threads == [1, 1, 1]
    scheduler.close(finish=True)


def test_a_model_that_cannot_come_back_says_why_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    models = Models()
    scheduler = started(models, EngineSettings(threads=1, idle_unload_s=0.0))
    until(scheduler, lambda state: not state.loaded)
    for error in (CorruptBundle("bundle", "bit rot"), OSError("disk on fire")):
        models.error = error
        told = pytest.raises(EdgekitError)
        with told as caught:
            answer_of(scheduler)
        assert caught.value is error or isinstance(caught.value, ServerError)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [models.error]
    models.error = None
    assert answer_of(scheduler) == expected()
    scheduler.close(finish=True)


def test_requests_can_come_and_go_while_the_model_is_loaded() -> None:
    models = Models()
    inside, go = threading.Semaphore(0), threading.Semaphore(0)
    scheduler = started(models, EngineSettings(threads=1, idle_unload_s=0.0, slots=1))
    until(scheduler, lambda state: not state.loaded)

    def loading() -> None:
        inside.release()
        go.acquire()

    models.loading = loading
    first = scheduler.submit(LONG)
    inside.acquire()
    second, third = scheduler.submit(LONG), scheduler.submit(LONG)
    second.cancel()
    assert read(second) == ("", "cancelled")
    closing = threading.Thread(target=lambda: scheduler.close(finish=False))
    closing.start()
    assert read(third) == ("", "cancelled")
    go.release()
    closing.join()
    assert read(first) == ("", "cancelled")


def test_a_model_that_works_is_not_unloaded() -> None:
    models = Models()
    scheduler = Scheduler(models(1), models, LANGUAGE, EngineSettings(threads=1, idle_unload_s=0.0))
    gate = Gate(models.rows[0])
    answer = scheduler.submit(LONG)
    scheduler.start()
    gate.reached()
    assert scheduler.state().loaded
    gate.leave_open()
    assert [token for piece in answer for token in piece.tokens] == expected()
    assert models.threads == [1]
    scheduler.close(finish=True)


# --- prepared beginnings --------------------------------------------------------------------


def test_a_beginning_is_read_when_nobody_asks_and_kept_for_others() -> None:
    scheduler = started(Models(), EngineSettings(threads=1))
    snapshot = scheduler.prepare(LONG.prompt[:60]).result()
    assert snapshot.length == 60
    scheduler.close(finish=True)
    other = started(models := Models(), EngineSettings(threads=1))
    other.warm(LONG.prompt[:60], snapshot)
    assert answer_of(other) == expected()
    assert other.state().cached_tokens == 60
    assert sum(len(ids) for ids in models.rows[0].fed) == 100 - 60 + 19
    other.close(finish=True)


def test_what_is_prepared_waits_for_requests() -> None:
    models = Models()
    scheduler = Scheduler(models(1), models, LANGUAGE, EngineSettings(threads=1, chunk_tokens=20))
    gate = Gate(models.rows[0])
    scheduler.start()
    prepared = scheduler.prepare(tuple(range(90)))
    gate.reached()
    answer = scheduler.submit(Generation(prompt=tuple(range(200, 230)), max_tokens=3))
    gate.leave_open()
    assert list(answer)[-1].finish
    assert prepared.result().length == 90
    names = ["prepared" if ids[0] < 90 and len(ids) > 2 else "asked" for ids in models.rows[0].fed]
    assert names == ["prepared", *["asked"] * (len(names) - 5), *["prepared"] * 4]
    scheduler.close(finish=True)


def test_closing_cancels_what_is_being_prepared() -> None:
    models = Models()
    scheduler = Scheduler(models(1), models, LANGUAGE, EngineSettings(threads=1, chunk_tokens=20))
    gate = Gate(models.rows[0])
    scheduler.start()
    running, waiting = scheduler.prepare(tuple(range(90))), scheduler.prepare(tuple(range(80)))
    gate.reached()
    closing = threading.Thread(target=lambda: scheduler.close(finish=False))
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result()
    gate.leave_open()
    closing.join()
    with pytest.raises(CancelledError):
        running.result()
    with pytest.raises(ShuttingDown):
        scheduler.prepare((1,))


def test_a_preparation_that_was_given_up_hurts_nobody() -> None:
    models = Models()
    scheduler = Scheduler(models(1), models, LANGUAGE, EngineSettings(threads=1))
    prepared = scheduler.prepare(tuple(range(90)))
    assert prepared.cancel()
    scheduler.start()
    assert answer_of(scheduler) == expected()
    scheduler.close(finish=True)


def test_a_beginning_that_cannot_be_read_says_why(caplog: pytest.LogCaptureFixture) -> None:
    models = Models()
    scheduler = Scheduler(models(1), models, LANGUAGE, EngineSettings(threads=1))

    def fail() -> None:
        raise ZeroDivisionError("kernel")

    models.rows[0].before_step = fail
    scheduler.start()
    with caplog.at_level(logging.ERROR), pytest.raises(ServerError, match="traceback"):
        scheduler.prepare((1, 2, 3)).result()
    with pytest.raises(InvalidRequest):
        scheduler.prepare((VOCAB,))
    scheduler.close(finish=True)


# --- what it says of itself -----------------------------------------------------------------


def test_the_state_counts_what_was_done() -> None:
    rows = FakeRows(saying("abc", prompt_tokens=40))
    scheduler = Scheduler(rows, Models(), LANGUAGE, EngineSettings(threads=2, slots=3))
    waiting = scheduler.submit(Generation(prompt=(7,) * 40))
    before = scheduler.state()
    assert (before.running, before.waiting, before.slots, before.loaded, before.threads) == (0, 1, 3, True, 2)
    scheduler.start()
    assert read(waiting) == ("abc", "stop")
    assert read(scheduler.submit(Generation(prompt=(7,) * 40))) == ("abc", "stop")
    state = until(scheduler, lambda state: not state.running)
    assert (state.read_tokens, state.cached_tokens, state.written_tokens) == (40, 39, 8)
    assert (state.cached_entries, state.cached_bytes) == (1, 43 * rows.bytes_per_token)
    assert (state.waiting, state.resting, state.drafted, state.accepted) == (0, False, 0, 0)
    scheduler.close(finish=True)


def test_several_requests_run_at_once() -> None:
    rows = FakeRows(hashed)
    scheduler = Scheduler(rows, Models(), LANGUAGE, EngineSettings(threads=1, slots=2))
    answers = [scheduler.submit(Generation(prompt=(n,) * 5, max_tokens=30)) for n in range(3)]
    gate = Gate(rows)
    scheduler.start()
    gate.reached()
    assert (scheduler.state().running, scheduler.depth()) == (2, 1)
    gate.leave_open()
    assert all(list(answer)[-1].finish for answer in answers)
    assert max(len(step) for _, step in rows.steps) == 2
    scheduler.close(finish=True)

import itertools
import queue

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.answers import Job
from device_agent.engine.records import Generation, Piece, Sampling
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History, Sampler, make_sampler
from device_agent.engine.sequence import Language, Run, room_for
from edgekit.errors import ContextOverflow, InvalidRequest, ServerError
from tests.device_agent.engine.scripted import END, LANGUAGE, VOCAB, one_hot, spelled

PROMPT = (1, 2, 3)


def run_of(
    generation: Generation, *, sampler: Sampler | None = None, context_tokens: int = 1000, language: Language = LANGUAGE
) -> Run:
    ticks = itertools.count()
    job = Job(generation, sampler or make_sampler(generation.sampling, vocab=VOCAB))
    return Run(job, language, context_tokens=context_tokens, clock=lambda: float(next(ticks)))


def asked(*, prompt: tuple[int, ...] = PROMPT, stop: tuple[str, ...] = (), max_tokens: int | None = None) -> Generation:
    return Generation(prompt=prompt, stop=stop, max_tokens=max_tokens)


def delivered(run: Run) -> list[Piece]:
    """What was put into the outbox so far and not taken yet."""
    found: list[Piece] = []
    while True:
        try:
            item = run.job.outbox.get_nowait()
        except queue.Empty:
            return found
        assert isinstance(item, Piece)
        found.append(item)


def feed(run: Run, *ids: int) -> list[Piece]:
    """Let the model want these tokens until the run has ended."""
    for token_id in ids:
        if run.finished:
            break
        run.accept(one_hot(token_id)[None])
    return delivered(run)


def say(text: str, *, stop: tuple[str, ...] = (), max_tokens: int | None = None) -> list[Piece]:
    return feed(run_of(asked(stop=stop, max_tokens=max_tokens)), *text.encode(), END)


def text_of(found: list[Piece]) -> str:
    return "".join(piece.text for piece in found)


def ids_of(found: list[Piece]) -> list[int]:
    return [i for piece in found for i in piece.tokens]


def ended(run: Run, *ids: int) -> tuple[list[int], str | None]:
    found = feed(run, *ids)
    return ids_of(found), found[-1].finish


def test_an_answer_ends_with_its_stop_token() -> None:
    assert ended(run_of(asked()), 7, 8, END, 9) == ([7, 8, END], "stop")


def test_any_of_several_stop_tokens_ends_it() -> None:
    language = Language(LANGUAGE.tokenizer, frozenset({8, END}), VOCAB)
    assert ended(run_of(asked(), language=language), 7, 8, 9) == ([7, 8], "stop")


def test_max_tokens_ends_it() -> None:
    assert ended(run_of(asked(max_tokens=2)), 7, 8, 9) == ([7, 8], "length")


def test_a_stop_token_at_the_limit_is_a_stop() -> None:
    assert ended(run_of(asked(max_tokens=1)), END) == ([END], "stop")


@pytest.mark.parametrize("max_tokens", [None, 5, 10**9])
def test_prompt_and_answer_fill_the_context_and_no_more(max_tokens: int | None) -> None:
    assert ended(run_of(asked(max_tokens=max_tokens), context_tokens=5), 7, 8, 9) == ([7, 8], "length")


def test_what_is_left_to_read_is_the_prompt_and_then_the_newest_token() -> None:
    run = run_of(asked(max_tokens=3))
    assert (run.left, run.made, run.room) == (3, 0, 3)
    run.read = 3
    feed(run, 7)
    assert (run.ids, run.left, run.made, run.room) == ([1, 2, 3, 7], 1, 1, 2)


def test_the_sampler_sees_prompt_and_answer() -> None:
    seen: list[tuple[set[int], dict[int, float]]] = []

    def spy(logits: Floats, history: History) -> int:
        ids, counts = history.generated()
        seen.append((set(history.seen().tolist()), dict(zip(ids.tolist(), counts.tolist(), strict=True))))
        return int(np.argmax(logits))

    feed(run_of(asked(prompt=(1, 2)), sampler=spy), 7, 7, 1, END)
    assert seen == [({1, 2}, {}), ({1, 2, 7}, {7: 1}), ({1, 2, 7}, {7: 2}), ({1, 2, 7}, {7: 2, 1: 1})]


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    assert room_for(asked(prompt=(5,) * 9), context_tokens=10) == 1
    with pytest.raises(ContextOverflow) as caught:
        room_for(asked(prompt=(5,) * 10), context_tokens=10)
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (10, 10)


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "param"), [(0, None, "prompt"), (1, 0, "max_tokens"), (1, -5, "max_tokens")]
)
def test_an_impossible_request_is_refused(prompt_tokens: int, max_tokens: int | None, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run_of(asked(prompt=(5,) * prompt_tokens, max_tokens=max_tokens))
    assert caught.value.param == param


# --- guesses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drafts", "wanted", "made", "accepted"),
    [
        ((5, 6, 7), (5, 6, 7, 8), [5, 6, 7, 8], 3),
        ((5, 6, 7), (5, 9, 7, 8), [5, 9], 1),
        ((5, 6), (9, 6, 7), [9], 0),
        ((5, END, 7), (5, END, 7, 8), [5, END], 2),
        ((5, 6, 7, 8), (5, 6, 7, 8, 9), [5, 6, 7, 8], 4),
    ],
    ids=["all right", "one right", "none right", "up to the end of the answer", "up to the limit"],
)
def test_guesses_are_kept_as_far_as_they_are_what_the_model_says(
    drafts: tuple[int, ...], wanted: tuple[int, ...], made: list[int], accepted: int
) -> None:
    run = run_of(asked(max_tokens=4))
    run.accept(np.stack([one_hot(token_id) for token_id in wanted]), drafts)
    assert run.ids[3:] == made
    assert (run.drafted, run.accepted) == (len(drafts), accepted)
    if run.finished:
        timings = delivered(run)[-1].timings
        assert timings
        assert (timings.drafted, timings.accepted) == (len(drafts), accepted)


# --- text -----------------------------------------------------------------------------------


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_text_and_tokens_of_the_pieces_add_up(text: str, stop: list[str]) -> None:
    found = say(text, stop=tuple(stop))
    cuts = [(at + len(s), at) for s in stop if (at := text.find(s)) >= 0]  # whichever is complete first
    assert text_of(found) == (text[: min(cuts)[1]] if cuts else text)
    everything = [*text.encode(), END]
    assert ids_of(found) == everything[: len(ids_of(found))]
    assert cuts or ids_of(found) == everything
    assert [piece.finish for piece in found] == [None] * (len(found) - 1) + ["stop"]
    assert all(piece.text for piece in found[:-1])


def test_a_piece_carries_the_tokens_that_led_to_its_text() -> None:
    first, second, last = say("a€")
    assert (first.text, first.tokens) == ("a", (0x61,))
    assert (second.text, second.tokens) == ("€", tuple("€".encode()))
    assert (last.text, last.tokens, last.finish) == ("", (END,), "stop")


def test_a_stop_string_ends_the_answer_and_its_tokens_are_counted() -> None:
    found = say("one\n\ntwo", stop=("\n\n",))
    assert (text_of(found), found[-1].finish) == ("one", "stop")
    assert spelled(ids_of(found)) == "one\n\n"
    assert found[-1].timings
    assert found[-1].timings.generated_tokens == 5


def test_a_stop_string_completed_by_the_last_allowed_token_is_a_stop() -> None:
    assert say("abc", stop=("c",), max_tokens=3)[-1].finish == "stop"


@pytest.mark.parametrize(("max_tokens", "finish"), [(None, "stop"), (4, "length")])
def test_what_a_stop_string_held_back_is_released_at_the_end(max_tokens: int | None, finish: str) -> None:
    found = say("one\n", stop=("\n\n",), max_tokens=max_tokens)
    assert (text_of(found), found[-1].finish) == ("one\n", finish)


def test_a_character_cut_off_by_the_limit_is_replaced() -> None:
    found = say("a€", max_tokens=3)
    assert (text_of(found), found[-1].finish, len(ids_of(found))) == ("a\ufffd", "length", 3)


def test_a_cancelled_answer_keeps_what_it_had() -> None:
    run = run_of(asked())
    found = feed(run, *b"hel")
    run.cancel()
    found += delivered(run)
    assert (text_of(found), ids_of(found), found[-1].finish) == ("hel", list(b"hel"), "cancelled")
    assert run.finished


def test_timings_part_at_the_first_token() -> None:
    # The clock ticks once when asked: at the start, and at every token.
    timings = feed(run_of(asked(prompt=(9,) * 11)), *b"four", END)[-1].timings
    assert timings
    assert (timings.prompt_tokens, timings.prompt_s) == (11, 1)
    assert (timings.generated_tokens, timings.generate_s) == (5, 4)
    assert timings.generated_per_second == 1
    assert timings.prompt_per_second == 11


def test_tokens_that_were_known_are_not_counted_as_read() -> None:
    run = run_of(asked(prompt=(9,) * 11))
    run.cached = 8
    timings = feed(run, END)[-1].timings
    assert timings
    assert (timings.prompt_tokens, timings.cached_tokens, timings.read_tokens) == (11, 8, 3)
    assert timings.prompt_per_second == 3


def test_timings_of_an_answer_without_tokens() -> None:
    run = run_of(asked())
    run.cancel()
    timings = delivered(run)[-1].timings
    assert timings
    assert (timings.prompt_s, timings.generated_tokens, timings.generate_s) == (1, 0, 0)


def test_pieces_come_while_the_answer_is_made() -> None:
    run = run_of(asked())
    assert [piece.text for piece in feed(run, *b"a")] == ["a"]
    assert not run.finished


def test_broken_logits_come_through() -> None:
    run = run_of(Generation(prompt=(1,), sampling=Sampling()))
    with pytest.raises(ServerError):
        run.accept(np.full((1, VOCAB), np.nan, np.float32))

import itertools
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.drafting.guesser import Guesser
from device_agent.engine.grammars.guide import Grammars
from device_agent.engine.logprobs import logprob_of
from device_agent.engine.records import Generation, Grammar, Piece, Sampling
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History, Sampler, make_sampler
from device_agent.engine.scheduling.answers import Job
from device_agent.engine.scheduling.sequence import Language, Run, room_for
from edgekit.errors import ContextOverflow, InvalidRequest, ServerError
from tests.device_agent.engine.scripted import END, LANGUAGE, VOCAB, byte_tokenizer, one_hot, spelled

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
    run = run_of(asked(stop=("x",)))
    assert ended(run, 7, 8, END, 9) == ([7, 8, END], "stop")


def test_only_a_stop_string_is_named_as_what_ended_it() -> None:
    assert [say("ab", stop=("x",), max_tokens=most)[-1].stopped_by for most in (1, 5)] == [None, None]


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
    assert (text_of(found), found[-1].finish, found[-1].stopped_by) == ("one", "stop", "\n\n")
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


# --- logprobs -------------------------------------------------------------------------------


def lines(*ids: int) -> Floats:
    """Logits that favour each of these in turn, none of them alike."""
    noise = np.random.default_rng(0).normal(size=(len(ids), VOCAB)).astype(np.float32)
    for line, token_id in zip(noise, ids, strict=True):
        line[token_id] += 20
    return noise


def with_logprobs(top: int | None, **sampling: Any) -> Run:
    return run_of(Generation(prompt=PROMPT, sampling=Sampling(temperature=0, **sampling), top_logprobs=top))


def test_every_token_has_its_logprob_also_where_text_was_held_back() -> None:
    run, logits = with_logprobs(2), lines(*"a€".encode(), END)
    for line in logits:
        run.accept(line[None])
    found = delivered(run)
    assert [len(piece.tokens) for piece in found] == [1, 3, 1]
    for piece in found:
        assert [each.id for each in piece.logprobs] == list(piece.tokens)
    flat = [each for piece in found for each in piece.logprobs]
    assert flat == [logprob_of(line, token, top=2) for line, token in zip(logits, ids_of(found), strict=True)]


def test_guessed_tokens_have_theirs_and_those_that_were_not_taken_have_none() -> None:
    run, logits = with_logprobs(1), lines(7, 8, 9)
    run.accept(logits, (7, 5))
    found = delivered(run)
    assert ids_of(found) == [7, 8]
    assert [each for piece in found for each in piece.logprobs] == [
        logprob_of(line, token, top=1) for line, token in zip(logits, (7, 8), strict=False)
    ]


def test_they_are_the_models_own_whatever_the_sampler_does() -> None:
    run, (line,) = with_logprobs(1, logit_bias={7: -100.0, 9: 100.0}), lines(7)
    run.accept(line[None])
    (found,) = delivered(run)[0].logprobs
    assert (found.id, found.top[0][0]) == (9, 7)
    assert found == logprob_of(line, 9, top=1)
    assert found.logprob is not None
    assert np.isfinite(found.logprob)


@pytest.mark.parametrize("top", [None, 0])
def test_they_come_only_if_they_are_asked_for(top: int | None) -> None:
    run = with_logprobs(top)
    run.accept(lines(7))
    found = delivered(run)[0].logprobs
    assert [each.top for each in found] == ([] if top is None else [()])


# --- grammars -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grammars() -> Iterator[Grammars]:
    made = Grammars(byte_tokenizer(), vocab=VOCAB, eos=(END,))
    yield made
    made.close()


def guided(grammars: Grammars, grammar: Grammar, **wanted: Any) -> Run:
    generation = Generation(prompt=PROMPT, grammar=grammar, **wanted)
    job = Job(generation, make_sampler(generation.sampling, vocab=VOCAB), guide=grammars.guide(grammar))
    return Run(job, LANGUAGE, context_tokens=1000, clock=lambda: 0.0, guesser=Guesser())


DIGITS = Grammar("regex", "[0-9]{3}")


def test_what_the_model_wants_is_bound_to_the_grammar_which_ends_the_answer(grammars: Grammars) -> None:
    run = guided(grammars, DIGITS)
    for _ in range(3):
        run.accept(lines(ord("x")))
    found = delivered(run)
    assert text_of(found).isdigit()
    assert (len(ids_of(found)), found[-1].finish) == (3, "stop")


def test_the_models_wish_counts_where_the_grammar_leaves_a_choice(grammars: Grammars) -> None:
    run = guided(grammars, DIGITS)
    run.accept(lines(*b"123"), tuple(b"12"))
    assert text_of(delivered(run)) == "123"


def test_a_grammar_that_may_end_ends_with_the_models_own_token(grammars: Grammars) -> None:
    run = guided(grammars, Grammar("regex", "a*"))
    run.accept(lines(ord("a")))
    run.accept(lines(END))
    found = delivered(run)
    assert (text_of(found), ids_of(found), found[-1].finish) == ("a", [ord("a"), END], "stop")


def test_a_grammar_that_is_not_complete_at_the_limit_is_cut(grammars: Grammars) -> None:
    run = guided(grammars, DIGITS, max_tokens=2)
    run.accept(lines(*b"12"), tuple(b"1"))
    assert delivered(run)[-1].finish == "length"


def test_a_grammar_that_is_complete_at_the_limit_is_a_stop(grammars: Grammars) -> None:
    run = guided(grammars, DIGITS, max_tokens=3)
    run.accept(lines(*b"123"), tuple(b"12"))
    assert delivered(run)[-1].finish == "stop"


def test_a_stop_string_ends_an_answer_wherever_its_grammar_is(grammars: Grammars) -> None:
    run = guided(grammars, DIGITS, stop=("2",))
    run.accept(lines(*b"123"), tuple(b"12"))
    last = delivered(run)[-1]
    assert (last.text, last.finish, last.stopped_by) == ("", "stop", "2")


def test_logprobs_do_not_see_the_grammar(grammars: Grammars) -> None:
    run, (line,) = guided(grammars, DIGITS, top_logprobs=1), lines(ord("x"))
    run.accept(line[None])
    (found,) = delivered(run)[0].logprobs
    assert found.top[0][0] == ord("x")
    assert found == logprob_of(line, found.id, top=1)


def test_what_the_grammar_forces_is_guessed(grammars: Grammars) -> None:
    run = guided(grammars, Grammar("regex", "abcdef[0-9]"))
    assert bytes(run.drafts(cost=lambda _: 1.0)) == b"abcdef"
    limited = guided(grammars, Grammar("regex", "abcdef[0-9]"), max_tokens=3)
    assert bytes(limited.drafts(cost=lambda _: 1.0)) == b"ab"


def test_guesses_end_where_the_grammar_forbids_them(grammars: Grammars) -> None:
    class Sure:
        def guess(self, ids: Sequence[int], *, room: int, cost: Callable[[int], float]) -> Sequence[int]:
            return b"12x4"[:room]

    run = guided(grammars, Grammar("regex", "[0-9]{5}"))
    run.guesser = Sure()
    assert bytes(run.drafts(cost=lambda _: 1.0)) == b"12"


# --- the prompt's own logprobs ----------------------------------------------------------------


def test_a_prompts_logprobs_come_first_and_alone() -> None:
    run = run_of(Generation(prompt=PROMPT, prompt_logprobs=True, top_logprobs=1, max_tokens=1))
    assert run.reads
    run.read = 3
    logits = lines(2, 3, 7)
    run.accept_prompt(logits)
    first, last = delivered(run)
    assert (first.text, first.tokens, [each.id for each in first.prompt_logprobs]) == ("", (), list(PROMPT))
    assert first.prompt_logprobs[1] == logprob_of(logits[0], 2, top=1)
    assert (last.tokens, last.prompt_logprobs, last.finish) == ((7,), (), "length")
    assert not run.reads


def test_without_tokens_to_write_the_answer_ends_with_its_prompt() -> None:
    run = run_of(Generation(prompt=PROMPT, prompt_logprobs=True, max_tokens=0), context_tokens=3)
    run.read = 3
    run.accept_prompt(lines(2, 3, 7))
    _, last = delivered(run)
    assert (last.tokens, last.finish) == ((), "length")
    assert last.timings
    assert last.timings.generated_tokens == 0
    assert run.finished

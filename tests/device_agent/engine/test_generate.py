import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.generate import Limits, Token, answer, generate, room_for
from device_agent.engine.records import GREEDY, Generation, Piece, Sampling
from device_agent.engine.sampling import History, Logits, make_sampler
from edgekit.errors import ContextOverflow, InvalidRequest, ServerError
from tests.device_agent.engine.scripted import END, VOCAB, ScriptedDecoder, byte_tokenizer, decoder_saying, spelled

GREEDILY = make_sampler(GREEDY, vocab=VOCAB)
EOS = frozenset({END})
TOKENIZER = byte_tokenizer()


def never() -> bool:
    return False


class After:
    """Says "cancelled" from the `polls`-th question on."""

    def __init__(self, polls: int) -> None:
        self.polls = polls

    def __call__(self) -> bool:
        self.polls -= 1
        return self.polls < 0


def tokens(
    decoder: ScriptedDecoder, prompt: tuple[int, ...] = (1, 2, 3), *, limits: Limits | None = None
) -> list[Token]:
    decoder.expect_prompt(len(prompt))
    return list(generate(decoder, prompt, GREEDILY, limits=limits or Limits(eos=EOS), cancelled=never))


def test_an_answer_ends_with_its_stop_token_and_no_further_step() -> None:
    decoder = ScriptedDecoder(7, 8, END)
    assert tokens(decoder) == [Token(7), Token(8), Token(END, "stop")]
    assert decoder.steps == [(1, 2, 3), (7,), (8,)]


def test_any_of_several_stop_tokens_ends_it() -> None:
    assert tokens(ScriptedDecoder(7, 8), limits=Limits(eos=frozenset({8, END}))) == [Token(7), Token(8, "stop")]


def test_max_tokens_ends_it_and_no_further_step() -> None:
    decoder = ScriptedDecoder(7, 8, 9)
    assert tokens(decoder, limits=Limits(eos=EOS, max_tokens=2)) == [Token(7), Token(8, "length")]
    assert decoder.steps == [(1, 2, 3), (7,)]


def test_a_stop_token_at_the_limit_is_a_stop() -> None:
    assert tokens(ScriptedDecoder(END), limits=Limits(eos=EOS, max_tokens=1)) == [Token(END, "stop")]


@pytest.mark.parametrize("max_tokens", [None, 5, 10**9])
def test_prompt_and_answer_fill_the_context_and_no_more(max_tokens: int | None) -> None:
    decoder = ScriptedDecoder(7, 8, 9, context_tokens=5)
    assert tokens(decoder, limits=Limits(eos=EOS, max_tokens=max_tokens)) == [Token(7), Token(8, "length")]
    assert decoder.length == 4, "the last token is not computed upon"


def test_the_cache_is_emptied_first() -> None:
    decoder = ScriptedDecoder(END)
    decoder.length = 999
    tokens(decoder)
    assert decoder.length == 3


@given(st.integers(1, 40), st.integers(1, 50))
def test_a_prompt_goes_in_chunks_whole_and_in_order(prompt_tokens: int, chunk_tokens: int) -> None:
    decoder, prompt = ScriptedDecoder(9, END), tuple(range(prompt_tokens))
    assert tokens(decoder, prompt, limits=Limits(eos=EOS, chunk_tokens=chunk_tokens))[0] == Token(9)
    assert [i for ids in decoder.steps for i in ids] == [*prompt, 9]
    assert max(len(ids) for ids in decoder.steps) == min(chunk_tokens, prompt_tokens)
    assert len(decoder.steps) == -(-prompt_tokens // chunk_tokens) + 1


@pytest.mark.parametrize(
    ("polls", "steps", "made"),
    [(0, [], 0), (1, [(1, 2)], 0), (2, [(1, 2), (3,)], 1), (3, [(1, 2), (3,), (7,)], 2)],
    ids=["before the first chunk", "between chunks", "after the first token", "between tokens"],
)
def test_a_cancelled_generation_makes_no_further_step(polls: int, steps: list[tuple[int, ...]], made: int) -> None:
    decoder = ScriptedDecoder(7, 8, 9, END)
    decoder.expect_prompt(3)
    limits = Limits(eos=EOS, chunk_tokens=2)
    found = list(generate(decoder, (1, 2, 3), GREEDILY, limits=limits, cancelled=After(polls)))
    assert found == [*[Token(7), Token(8)][:made], Token(None, "cancelled")]
    assert decoder.steps == steps


def test_the_sampler_sees_prompt_and_answer() -> None:
    seen: list[tuple[set[int], dict[int, float]]] = []

    def spy(logits: Logits, history: History) -> int:
        ids, counts = history.generated()
        seen.append((set(history.seen().tolist()), dict(zip(ids.tolist(), counts.tolist(), strict=True))))
        return int(np.argmax(logits))

    decoder = ScriptedDecoder(7, 7, 1, END)
    list(generate(decoder, (1, 2), spy, limits=Limits(eos=EOS), cancelled=never))
    assert seen == [({1, 2}, {}), ({1, 2, 7}, {7: 1}), ({1, 2, 7}, {7: 2}), ({1, 2, 7}, {7: 2, 1: 1})]


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    assert room_for(9, max_tokens=None, context_tokens=10) == 1
    with pytest.raises(ContextOverflow) as caught:
        tokens(ScriptedDecoder(context_tokens=10), tuple(range(10)))
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (10, 10)


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "param"), [(0, None, "prompt"), (1, 0, "max_tokens"), (1, -5, "max_tokens")]
)
def test_an_impossible_request_is_refused(prompt_tokens: int, max_tokens: int | None, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tokens(ScriptedDecoder(), (5,) * prompt_tokens, limits=Limits(eos=EOS, max_tokens=max_tokens))
    assert caught.value.param == param


# --- answers --------------------------------------------------------------------------------


def pieces(
    decoder: ScriptedDecoder,
    *,
    prompt: tuple[int, ...] = (1, 2, 3),
    stop: tuple[str, ...] = (),
    max_tokens: int | None = None,
    polls: int = 10**9,
) -> list[Piece]:
    decoder.expect_prompt(len(prompt))
    ticks = itertools.count()
    return list(
        answer(
            decoder,
            Generation(prompt=prompt, stop=stop, max_tokens=max_tokens),
            GREEDILY,
            tokenizer=TOKENIZER,
            eos=EOS,
            cancelled=After(polls),
            clock=lambda: float(next(ticks)),
        )
    )


def text_of(found: list[Piece]) -> str:
    return "".join(piece.text for piece in found)


def ids_of(found: list[Piece]) -> list[int]:
    return [i for piece in found for i in piece.tokens]


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_text_and_tokens_of_the_pieces_add_up(text: str, stop: list[str]) -> None:
    found = pieces(decoder_saying(text), stop=tuple(stop))
    cuts = [at for s in stop if (at := text.find(s)) >= 0]
    assert text.startswith(text_of(found))
    assert len(text_of(found)) <= min(cuts, default=len(text)) or not cuts
    assert cuts or text_of(found) == text
    everything = [*text.encode(), END]
    assert ids_of(found) == everything[: len(ids_of(found))]
    assert cuts or ids_of(found) == everything
    assert [piece.finish for piece in found] == [None] * (len(found) - 1) + ["stop"]
    assert all(piece.text for piece in found[:-1])


def test_a_piece_carries_the_tokens_that_led_to_its_text() -> None:
    first, second, last = pieces(decoder_saying("a€"))
    assert (first.text, first.tokens) == ("a", (0x61,))
    assert (second.text, second.tokens) == ("€", tuple("€".encode()))
    assert (last.text, last.tokens, last.finish) == ("", (END,), "stop")


def test_a_stop_string_ends_the_answer_and_its_tokens_are_counted() -> None:
    decoder = decoder_saying("one\n\ntwo")
    found = pieces(decoder, stop=("\n\n",))
    assert (text_of(found), found[-1].finish) == ("one", "stop")
    assert spelled(ids_of(found)) == "one\n\n"
    assert len(decoder.steps) == 5, "nothing is computed after the stop string"
    assert found[-1].timings
    assert found[-1].timings.generated_tokens == 5


def test_a_stop_string_completed_by_the_last_allowed_token_is_a_stop() -> None:
    assert pieces(decoder_saying("abc"), stop=("c",), max_tokens=3)[-1].finish == "stop"


@pytest.mark.parametrize(("max_tokens", "finish"), [(None, "stop"), (4, "length")])
def test_what_a_stop_string_held_back_is_released_at_the_end(max_tokens: int | None, finish: str) -> None:
    found = pieces(decoder_saying("one\n"), stop=("\n\n",), max_tokens=max_tokens)
    assert (text_of(found), found[-1].finish) == ("one\n", finish)


def test_a_character_cut_off_by_the_limit_is_replaced() -> None:
    found = pieces(decoder_saying("a€"), max_tokens=3)
    assert (text_of(found), found[-1].finish, len(ids_of(found))) == ("a\ufffd", "length", 3)


def test_a_cancelled_answer_keeps_what_it_had() -> None:
    found = pieces(decoder_saying("hello"), polls=3)
    assert (text_of(found), ids_of(found), found[-1].finish) == ("hel", list(b"hel"), "cancelled")


def test_timings_part_at_the_first_token() -> None:
    # The clock ticks once when asked: at the start, and at every token.
    timings = pieces(decoder_saying("four"), prompt=(9,) * 11)[-1].timings
    assert timings
    assert (timings.prompt_tokens, timings.prompt_s) == (11, 1)
    assert (timings.generated_tokens, timings.generate_s) == (5, 4)
    assert timings.generated_per_second == 1


def test_timings_of_an_answer_without_tokens() -> None:
    timings = pieces(decoder_saying("no"), polls=0)[-1].timings
    assert timings
    assert (timings.prompt_s, timings.generated_tokens, timings.generate_s) == (1, 0, 0)


def test_pieces_come_while_the_answer_is_made() -> None:
    decoder = decoder_saying("ab")
    stream = answer(decoder, Generation(prompt=(1,)), GREEDILY, tokenizer=TOKENIZER, eos=EOS, cancelled=never)
    assert next(stream).text == "a"
    assert len(decoder.steps) == 1


def test_a_failing_step_and_broken_logits_come_through() -> None:
    with pytest.raises(OSError, match="gone"):
        pieces(ScriptedDecoder(0x61, OSError("gone")))
    broken = ScriptedDecoder(END)
    broken.expect_prompt(10)
    sampler = make_sampler(Sampling(), vocab=VOCAB)
    with pytest.raises(ServerError):
        list(generate(broken, (1,), sampler, limits=Limits(eos=EOS), cancelled=never))

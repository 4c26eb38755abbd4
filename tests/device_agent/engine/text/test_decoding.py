import itertools
from collections.abc import Sequence

import pytest
import tokenizers
import tokenizers.decoders
import tokenizers.models
from hypothesis import example, given
from hypothesis import strategies as st

from device_agent.engine.text.decoding import Detokenizer, StopStrings
from edgekit.errors import InvalidRequest
from tests.device_agent.engine.scripted import END, byte_tokenizer

BYTES = byte_tokenizer()
# Tokens that begin and end inside of characters, as merges learnt from bytes do.
MISALIGNED = byte_tokenizer(
    [b" \xe2", b"\x82\xac\xe2", b"\x82\xac", b"\xacx", b"\xf0\x9f", b"\x98\x80 a", b"\xef\xbf", b"\xbd"]
)
WORDS = ["<unk>", "▁", "▁Hello", "▁world", "ing", "<|end|>"]
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def sentencepiece_tokenizer() -> tokenizers.Tokenizer:
    """Llama 2's decoder: U+2581 is a space, unknown characters are byte tokens, a first space is dropped."""
    vocab = {token: i for i, token in enumerate(WORDS + BYTE_TOKENS)}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


PIECES = sentencepiece_tokenizer()


def piece_ids(*tokens: str | bytes) -> list[int]:
    """Ids of words, and of each byte."""
    vocab = PIECES.get_vocab()
    return [
        i
        for token in tokens
        for i in ([vocab[token]] if isinstance(token, str) else [vocab[BYTE_TOKENS[byte]] for byte in token])
    ]


def streamed(tokenizer: tokenizers.Tokenizer, ids: list[int], shown: frozenset[int] = frozenset()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, shown=shown)
    return [*(detokenizer.push(i) for i in ids), detokenizer.finish()]


@given(st.text(max_size=60))
@example("👩‍👩‍👧‍👦 e\u0301 हिन्दी 🇩🇪 \ufffd\ufffd\ufffd\ufffd\ufffd ok")
@example("\ufffd" * 100)
def test_pieces_of_any_text_join_to_the_text(text: str) -> None:
    ids = BYTES.encode(text).ids
    pieces = streamed(BYTES, ids)
    assert "".join(pieces) == text
    assert pieces[-1] == "" or text.endswith("\ufffd")


@given(st.lists(st.integers(0, MISALIGNED.get_vocab_size() + 3), max_size=150))
@example([0xFF] * 150)
@example([0x20, *[258] * 100, 0x82])
@example([0xE2, *[END] * 50, 0x82, *[END] * 50, 0xAC])
@example([*[257, 258, 259, 0xAC] * 30, 261])
@example([*[0x80] * 60, *[END, 0xE2, END, 0x82, END, 0xAC] * 20, *[0xF0, 0x9F] * 40])
def test_pieces_of_any_bytes_join_to_what_decoding_them_at_once_gives(ids: list[int]) -> None:
    assert "".join(streamed(MISALIGNED, ids)) == MISALIGNED.decode(ids)


@given(st.text(min_size=1, max_size=20).filter(lambda text: "\ufffd" not in text))
def test_a_character_appears_with_its_last_byte_and_never_in_part(text: str) -> None:
    detokenizer = Detokenizer(BYTES)
    for character in text:
        *first, last = character.encode()
        assert [detokenizer.push(byte) for byte in first] == [""] * len(first)
        assert detokenizer.push(last) == character


def test_text_before_an_unfinished_character_does_not_wait_for_it() -> None:
    detokenizer = Detokenizer(MISALIGNED)
    assert detokenizer.push(257) == " "
    assert [detokenizer.push(byte) for byte in b"\x82\xac"] == ["", "€"]


def test_an_unfinished_character_is_replaced_at_the_end_only() -> None:
    assert streamed(BYTES, [0x61, 0xF0, 0x9F]) == ["a", "", "", "\ufffd"]


def test_a_detokenizer_can_be_used_again_after_finish() -> None:
    detokenizer = Detokenizer(BYTES)
    assert [detokenizer.push(0xE2), detokenizer.finish(), detokenizer.push(0x61)] == ["", "\ufffd", "a"]


def test_special_tokens_are_skipped_even_inside_of_a_character() -> None:
    assert streamed(BYTES, [END, 0x61, 0xE2, END, 0x82, END, 0xAC, END]) == ["", "a", "", "", "", "", "€", "", ""]


OTHER_SPECIAL = byte_tokenizer()
OTHER_SPECIAL.add_special_tokens(["<|call|>"])
CALL = OTHER_SPECIAL.token_to_id("<|call|>")


@given(st.lists(st.one_of(st.integers(0, CALL), st.sampled_from([END, CALL])), max_size=60))
def test_special_tokens_that_are_shown_are_text_and_the_others_are_not(ids: list[int]) -> None:
    whole = OTHER_SPECIAL.decode([i for i in ids if i != END], skip_special_tokens=False)
    assert "".join(streamed(OTHER_SPECIAL, ids, frozenset({CALL}))) == whole


def test_a_shown_token_comes_at_once() -> None:
    assert streamed(OTHER_SPECIAL, [0x61, CALL, END, 0x62], frozenset({CALL})) == ["a", "<|call|>", "", "b", ""]


def test_a_word_after_a_shown_token_keeps_its_space() -> None:
    end = PIECES.token_to_id("<|end|>")
    ids = [*piece_ids("▁Hello"), end, *piece_ids("▁world")]
    assert streamed(PIECES, ids, frozenset({end})) == ["Hello", "<|end|>", " world", ""]


SENTENCES = {
    "the first space is dropped, later ones are kept": (["▁Hello", "▁world", "▁Hello"], "Hello world Hello"),
    "only one space is dropped": (["▁", "▁Hello", "▁", "▁world"], " Hello  world"),
    "a space of its own after a word": (["▁Hello", "▁", "ing"], "Hello ing"),
    "a special token first": (["<|end|>", "▁Hello", "▁world"], "Hello world"),
    "bytes first": (["😀".encode(), "▁Hello"], "😀 Hello"),
    "bytes between words": (["▁Hello", "€€".encode(), "▁world"], "Hello€€ world"),
    "bytes at the end": (["▁Hello", "▁", "😀".encode()], "Hello 😀"),
}


@pytest.mark.parametrize(("tokens", "text"), SENTENCES.values(), ids=SENTENCES.keys())
def test_sentencepiece_spaces_and_bytes_come_out_as_decoded_at_once(tokens: list[str | bytes], text: str) -> None:
    ids = piece_ids(*tokens)
    assert PIECES.decode(ids) == text, "the example itself"
    assert "".join(streamed(PIECES, ids)) == text


def test_bad_bytes_do_not_spoil_good_ones_that_were_shown() -> None:
    assert "".join(streamed(PIECES, piece_ids("😀".encode(), b"\xff", "▁Hello"))) == "😀\ufffd Hello"


@given(st.lists(st.sampled_from([*WORDS, *(c.encode() for c in "aé€😀\u0301")]), max_size=60))
def test_sentencepiece_pieces_join_to_what_decoding_them_at_once_gives(tokens: list[str | bytes]) -> None:
    ids = piece_ids(*tokens)
    assert "".join(streamed(PIECES, ids)) == PIECES.decode(ids)


@given(st.lists(st.integers(0, PIECES.get_vocab_size() - 1), max_size=120))
def test_sentencepiece_ids_of_any_kind_keep_every_word(ids: list[int]) -> None:
    def words(text: str) -> list[str]:
        return [word for word in ("Hello", "world", "ing") for _ in range(text.count(word))]

    assert words("".join(streamed(PIECES, ids))) == words(PIECES.decode(ids))


class CountingDecoder:
    def __init__(self) -> None:
        self.most_ids = 0

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        self.most_ids = max(self.most_ids, len(ids))
        return str(BYTES.decode(ids, skip_special_tokens=skip_special_tokens))


@pytest.mark.parametrize("unit", [[0x61], [0xFF], [0xE2, END], [END], [9999]], ids=str)
def test_the_work_for_a_token_does_not_grow_with_the_answer(unit: list[int]) -> None:
    decoder = CountingDecoder()
    detokenizer = Detokenizer(decoder)
    for i in unit * 2000:
        detokenizer.push(i)
    assert decoder.most_ids < 80


# --- stop strings ---------------------------------------------------------------------------


def naive_cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Read letter by letter; end where a stop string is complete."""
    for end in range(1, len(text) + 1):
        matched = [stop for stop in stops if text[:end].endswith(stop)]
        if matched:
            return text[: end - max(map(len, matched))], max(matched, key=len)
    return text, None


def read(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    reader = StopStrings(stops)
    shown = ""
    for piece in pieces:
        text, stopped = reader.push(piece)
        shown += text
        if stopped:
            assert reader.finish() == ""
            return shown, stopped
    return shown + reader.finish(), None


@given(
    st.lists(st.text("ab\n", max_size=6), max_size=12),
    st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4),
)
@example(["xab", "cdab", "ce"], ["abcdabce"])
@example(["aa", "ab"], ["aab"])
def test_the_cut_does_not_depend_on_the_pieces(pieces: list[str], stops: list[str]) -> None:
    assert read(pieces, stops) == naive_cut("".join(pieces), stops)


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_nothing_is_held_that_no_stop_string_begins_with(text: str, stops: list[str]) -> None:
    reader = StopStrings(stops)
    for letter in text:
        if reader.push(letter)[1]:
            return
    held = reader.finish()
    assert held == "" or any(stop.startswith(held) for stop in stops)


CUTS: dict[str, tuple[list[str], list[str], tuple[str, str] | None]] = {
    "inside of one piece": (["one\n\ntwo"], ["\n\n"], ("one", "\n\n")),
    "across pieces": (["one\n", "\ntwo"], ["\n\n"], ("one", "\n\n")),
    "a beginning that comes to nothing": (["one\n", "two"], ["\n\n"], None),
    "the one complete first": (["abcd"], ["abcd", "bc"], ("a", "bc")),
    "the longest of two that end together": (["abc"], ["c", "bc"], ("a", "bc")),
    "the whole answer": (["END"], ["END"], ("", "END")),
    "characters of several bytes": (["a✂", "️b"], ["✂️"], ("a", "✂️")),
}


@pytest.mark.parametrize(("pieces", "stops", "before"), CUTS.values(), ids=CUTS.keys())
def test_a_stop_string_ends_the_text_before_it(
    pieces: list[str], stops: list[str], before: tuple[str, str] | None
) -> None:
    assert read(pieces, stops) == (before or ("".join(pieces), None))


def test_a_long_stop_string_is_found_in_every_split() -> None:
    text, stop = "yes <|stop|> no", "<|stop|>"
    for cut, again in itertools.combinations(range(len(text)), 2):
        assert read([text[:cut], text[cut:again], text[again:]], [stop]) == ("yes ", stop)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        StopStrings(["ok", ""])
    assert caught.value.param == "stop"

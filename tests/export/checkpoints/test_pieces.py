"""Tokenizers from tables of pieces give the ids that SentencePiece gives."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import sentencepiece
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from export.checkpoints.pieces import Kind, Pieces, Spaces, add_around, add_looked_up, merged, unigram, word_pieces
from export.checkpoints.sentencepiece_file import parse_model
from tests.golden.gguf_values import CORPUS

AS_IS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
CASES: dict[str, dict[str, Any]] = {
    "merged": {"model_type": "bpe", "byte_fallback": True, **AS_IS},
    "merged without a prefix": {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, **AS_IS},
    "merged without bytes": {"model_type": "bpe", **AS_IS},
    "merged, spaces too": {"model_type": "bpe", "normalization_rule_name": "identity"},
    "unigram": {"model_type": "unigram", "byte_fallback": True, **AS_IS},
    "unigram, spaces merged": {"model_type": "unigram", "normalization_rule_name": "identity"},
}
PARTS = st.sampled_from(
    ["the", " a", "  ", "    ", "boat", "\n", "\t", "1", "22", "é", "こ", "🦙", "\u2581", "aaa", "x"]
)
CONTROLS = st.sampled_from(["<s>", "</s>", "<unk>", "<0x41>", "<", "s>"])
TEXTS = st.lists(PARTS | st.characters(codec="utf-8"), max_size=12).map("".join)


def train(**settings: Any) -> bytes:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=made,
        vocab_size=340 if settings.get("byte_fallback") else 90,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return made.getvalue()


class Pair:
    """The same model in SentencePiece and in ours, with control tokens read as text."""

    def __init__(self, raw: bytes) -> None:
        self.theirs = sentencepiece.SentencePieceProcessor(model_proto=raw)
        model = parse_model(raw, "tokenizer.model")
        spaces = Spaces(prefix="every" if model.prefix_space else "none", merged=model.merge_spaces)
        made = unigram(model.pieces, spaces, unknown=model.unknown) if model.unigram else merged(model.pieces, spaces)
        add_looked_up(made, model.pieces)
        self.ours = tokenizers.Tokenizer.from_str(made.to_str())
        self.ours.encode_special_tokens = True

    def ids(self, text: str) -> list[int]:
        return list(self.ours.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module", params=list(CASES.values()), ids=list(CASES))
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(train(**request.param))


@given(text=TEXTS)
@example(text="")
@example(text="  The  boat ")
@example(text="aaaa    a\u2581\u2581\u2581b")
def test_ids_equal_those_of_sentencepiece(text: str, pair: Pair) -> None:
    assert pair.ids(text) == pair.theirs.encode(text)


@given(text=TEXTS)
def test_known_text_comes_back_as_sentencepiece_writes_it(text: str, pair: Pair) -> None:
    ids = pair.theirs.encode(text)
    if pair.theirs.unk_id() not in ids and "\u2581" not in text:
        assert pair.ours.decode(ids, skip_special_tokens=False) == pair.theirs.decode(ids)


@given(parts=st.lists(CONTROLS | PARTS, max_size=8))
@example(parts=["<s>", "a", "</s>", "<0x41>", "<unk>"])
def test_no_text_turns_into_a_control_token(parts: list[str], pair: Pair) -> None:
    for number in pair.ids("".join(parts)):
        assert not pair.theirs.is_control(number)
        if pair.theirs.is_byte(number):  # what has no token of its own is bytes: those of the text, not of "<0x41>"
            assert bytes([int(pair.theirs.id_to_piece(number)[3:5], 16)]) in "".join(parts).encode()


def pieces(*rows: tuple[str, int, float]) -> Pieces:
    tokens, kinds, scores = zip(*rows, strict=True)
    return Pieces(tokens, kinds, scores)


LETTERS = [(letter, int(Kind.NORMAL), -10.0 - number) for number, letter in enumerate("\u2581abcdef")]


def encoded(made: tokenizers.Tokenizer, text: str) -> list[str]:
    return [made.id_to_token(number) for number in made.encode(text, add_special_tokens=False).ids]


def test_the_best_scored_token_is_merged_first_wherever_it_is() -> None:
    table = pieces(("?", Kind.UNKNOWN, 0), *LETTERS, ("ab", Kind.NORMAL, -3), ("bc", Kind.NORMAL, -2))
    assert encoded(merged(table, Spaces(prefix="none")), "abc") == ["a", "bc"]


def test_of_equal_pairs_the_leftmost_is_merged_first() -> None:
    table = pieces(("?", Kind.UNKNOWN, 0), *LETTERS, ("aa", Kind.NORMAL, -1), ("aaa", Kind.NORMAL, -2))
    assert encoded(merged(table, Spaces(prefix="none")), "aaaaa") == ["aa", "aaa"]


def test_tokens_are_never_merged_of_or_into_other_kinds() -> None:
    table = pieces(
        ("?", Kind.UNKNOWN, 0), *LETTERS, ("ab", Kind.CONTROL, 0), ("abc", Kind.NORMAL, 0), ("de", Kind.UNUSED, 0)
    )
    assert encoded(merged(table, Spaces(prefix="none")), "abcde") == ["a", "b", "c", "d", "e"]


PREFIXES: dict[str, tuple[str, list[str]]] = {
    "every": ("every", ["\u2581a", "#", "\u2581a", "#", "\u2581a"]),
    "start": ("start", ["\u2581a", "#", "a", "#", "\u2581a"]),
    "none": ("none", ["a", "#", "a", "#", "\u2581a"]),
}
Builder = Callable[[Pieces, Spaces], tokenizers.Tokenizer]


@pytest.mark.parametrize(
    "build", [merged, lambda table, spaces: unigram(table, spaces, unknown=0)], ids=["bpe", "unigram"]
)
@pytest.mark.parametrize(("prefix", "expected"), PREFIXES.values(), ids=PREFIXES.keys())
def test_where_a_space_goes_before_text(prefix: str, expected: list[str], build: Builder) -> None:
    table = pieces(("?", Kind.UNKNOWN, 0), *LETTERS, ("\u2581a", Kind.NORMAL, -1), ("#", Kind.USER_DEFINED, 0))
    made = build(table, Spaces(prefix=prefix))  # type: ignore[arg-type]
    add_looked_up(made, table)
    text = "a#a# a" if prefix != "every" else "a#a#a"
    assert encoded(made, text) == expected


def test_a_token_that_swallows_white_space_does_so_to_its_right() -> None:
    table = pieces(("?", Kind.UNKNOWN, 0), *LETTERS, ("<x>", Kind.CONTROL, 0), ("<y>", Kind.CONTROL, 0))
    made = merged(table, Spaces(prefix="none"))
    add_looked_up(made, table, rstrip=["<x>"])
    assert encoded(made, "<x> a<y> a") == ["<x>", "a", "<y>", "\u2581", "a"]


def test_tokens_around_a_text_are_added_when_asked_for() -> None:
    table = pieces(("?", Kind.UNKNOWN, 0), *LETTERS, ("<s>", Kind.CONTROL, 0), ("</s>", Kind.CONTROL, 0))
    made = merged(table, Spaces(prefix="none"))
    add_around(made, table.tokens, 8, 9)
    assert made.encode("a").tokens == ["<s>", "a", "</s>"]
    assert encoded(made, "a") == ["a"]


@pytest.mark.parametrize(
    ("lowercase", "expected"), [(True, ["[UNK]", "un", "##a", "!"]), (False, ["[UNK]", "[UNK]", "!"])]
)
def test_words_are_the_longest_pieces_that_fit(lowercase: bool, expected: list[str]) -> None:
    vocabulary = {"[UNK]": 0, "un": 1, "##a": 2, "u": 3, "!": 4}
    made = word_pieces(vocabulary, unknown="[UNK]", lowercase=lowercase, strip_accents=lowercase)
    assert encoded(made, "x  ÜNA!") == expected

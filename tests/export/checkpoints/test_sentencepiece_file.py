"""SentencePiece models byte by byte."""

import io
import struct

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CheckpointError, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints import charsmap
from export.checkpoints.pieces import Kind
from export.checkpoints.sentencepiece_file import parse_model
from tests.golden.gguf_values import CORPUS


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def real(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(token: str | bytes, kind: int = 1, score: float = 0.0) -> bytes:
    raw = token.encode() if isinstance(token, str) else token
    return field(1, field(1, raw) + real(2, score) + field(3, kind))


UNKNOWN = piece("<unk>", 2)
BPE = field(2, field(3, 2))


def test_what_a_model_says_is_read() -> None:
    raw = (
        UNKNOWN
        + piece("a", 1, -1.5)
        + piece("\u2581\u2581", 4)
        + field(2, field(3, 2))
        + field(3, field(3, 0) + field(4, 0))
    )
    model = parse_model(raw, "tokenizer.model")
    assert model.pieces.tokens == ["<unk>", "a", "  "]  # looked up in the text, where spaces are spaces
    assert model.pieces.kinds == [Kind.UNKNOWN, Kind.NORMAL, Kind.USER_DEFINED]
    assert model.pieces.scores == [0.0, -1.5, 0.0]
    assert (model.unigram, model.unknown, model.charsmap) == (False, 0, b"")
    assert (model.prefix_space, model.merge_spaces) == (False, False)


def test_what_a_model_does_not_say_is_as_the_schema_says() -> None:
    model = parse_model(piece("a") + UNKNOWN, "tokenizer.model")
    assert (model.unigram, model.unknown, model.prefix_space, model.merge_spaces) == (True, 1, True, True)


def test_unknown_fields_of_every_wire_type_are_skipped() -> None:
    extra = field(77, 3) + field(78, b"xyz") + real(79, 1.0) + varint(80 << 3 | 1) + bytes(8)
    assert parse_model(extra + UNKNOWN + BPE, "tokenizer.model").pieces.tokens == ["<unk>"]


BAD: dict[str, tuple[type[CheckpointError], bytes]] = {
    "nothing": (CorruptCheckpoint, b""),
    "text": (CorruptCheckpoint, b"not a model"),
    "a length beyond the end": (CorruptCheckpoint, varint(1 << 3 | 2) + varint(1 << 40)),
    "a number without end": (CorruptCheckpoint, b"\xff" * 20),
    "a number that is cut": (CorruptCheckpoint, b"\x08\x80"),
    "a group": (CorruptCheckpoint, varint(1 << 3 | 3)),
    "a piece that is not UTF-8": (CorruptCheckpoint, UNKNOWN + piece(b"\xff")),
    "a piece twice": (CorruptCheckpoint, UNKNOWN + piece("a") + piece("a")),
    "a score that is not a number": (CorruptCheckpoint, UNKNOWN + piece("a", 1, float("nan"))),
    "a score as a whole number": (CorruptCheckpoint, UNKNOWN + field(1, field(1, b"a") + field(2, 1))),
    "nothing for the unknown": (CorruptCheckpoint, piece("a")),
    "words": (UnsupportedCheckpoint, UNKNOWN + field(2, field(3, 3))),
    "spaces at the ends of words": (UnsupportedCheckpoint, UNKNOWN + field(2, field(24, 1))),
    "spaces as they are": (UnsupportedCheckpoint, UNKNOWN + field(3, field(5, 0))),
    "replacements as a number": (CorruptCheckpoint, UNKNOWN + field(3, field(2, 1))),
    "replacements of no size": (CorruptCheckpoint, UNKNOWN + field(3, field(2, bytes(8)))),
    "replacements larger than they are": (
        CorruptCheckpoint,
        UNKNOWN + field(3, field(2, b"\xff\xff\xff\x00" + bytes(8))),
    ),
    "replacements that lead outside": (CorruptCheckpoint, UNKNOWN + field(3, field(2, b"\x04\0\0\0" + bytes(8)))),
}


@pytest.mark.parametrize(("error", "raw"), BAD.values(), ids=BAD.keys())
def test_what_is_no_model_is_refused(error: type[CheckpointError], raw: bytes) -> None:
    with pytest.raises(error):
        parse_model(raw, "tokenizer.model")


@pytest.fixture(scope="module")
def trained() -> bytes:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4), model_writer=made, vocab_size=90, hard_vocab_limit=False, minloglevel=2
    )
    return made.getvalue()


def test_a_trained_model_s_replacements_pass_and_work(trained: bytes) -> None:
    model = parse_model(trained, "tokenizer.model")
    assert tokenizers.normalizers.Precompiled(model.charsmap).normalize_str("ﬁ①Ａ") == "fi1A"


def test_a_leaf_that_points_beside_the_texts_is_refused(trained: bytes) -> None:
    model = parse_model(trained, "tokenizer.model")
    size = int.from_bytes(model.charsmap[:4], "little")
    with pytest.raises(ValueError, match="beside"):
        charsmap.check(model.charsmap[: 4 + size] + b"a\0")


@given(data=st.data())
def test_a_damaged_model_is_read_or_refused_and_its_replacements_never_end_the_program(
    data: st.DataObject, trained: bytes
) -> None:
    damaged = bytearray(trained)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(trained) - 1))] = data.draw(st.integers(0, 255))
    try:
        model = parse_model(bytes(damaged), "tokenizer.model")
    except CheckpointError:
        return
    if model.charsmap:
        text = data.draw(st.text())
        tokenizers.normalizers.Precompiled(model.charsmap).normalize_str(text)

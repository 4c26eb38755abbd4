"""`bundle.json` is read strictly: the same facts give the same bytes, and anything else is an error with a name."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import manifest
from edgekit.errors import BundleError, CorruptBundle, UnsafePath, UnsupportedFormat

FACTS: dict[str, Any] = {
    "format": 1,
    "name": "tiny",
    "version": "1.0",
    "arch": {
        "model_type": "llama",
        "layers": 2,
        "hidden": 64,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "intermediate": 96,
        "vocab": 300,
        "context": 256,
        "norm_eps": 0.001,
        "rotary": {"dim": 16, "base": 10000.0},
        "activation": "silu",
        "tied": True,
    },
    "quant": {"precision": "int4", "method": "rtn", "weights": {"layers.0.qkv": "int4-b32"}},
    "files": [
        {"path": "model.onnx", "size": 10, "sha256": "0" * 64},
        {"path": "tokenizer.json", "size": 32, "sha256": "f" * 64},
    ],
    "requires": {"onnxruntime": "1.31", "disk_bytes": 42, "weight_bytes": 30, "kv_bytes_per_token": 512},
    "tokens": {"eos": [2], "bos": None, "pad": 0},
    "source": {"kind": "gguf", "file": "tiny.gguf", "licence": "apache-2.0"},
    "quality": {"max_abs_error": 0.001},
    "golden": [{"prompt": [1, 2], "tokens": [3, 4], "sure": 2}],
}


def copy_of_facts() -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(FACTS))
    return copy


def read(facts: object) -> manifest.Manifest:
    return manifest.parse(json.dumps(facts).encode(), path="here")


def test_every_fact_is_read() -> None:
    found = read(FACTS)
    assert json.loads(found.to_bytes()) == FACTS
    assert found.file_bytes == 42


def test_the_bytes_are_those_of_the_format() -> None:
    assert read(FACTS).to_bytes().decode() == json.dumps(FACTS, indent=2) + "\n"


def test_what_every_early_bundle_is_is_not_written() -> None:
    facts = json.loads(
        read({**FACTS, "kv": "shared", "cache": "float32", "task": "generate", "embedding": None}).to_bytes()
    )
    assert facts == FACTS


def test_another_kind_of_cache_is_written() -> None:
    found = read({**FACTS, "kv": "concat"})
    assert found.kv == "concat"
    assert json.loads(found.to_bytes())["kv"] == "concat"


def test_another_type_of_cache_is_written() -> None:
    found = read({**FACTS, "cache": "int8"})
    assert found.cache == "int8"
    assert json.loads(found.to_bytes()) == {**FACTS, "cache": "int8"}


@pytest.mark.parametrize("others", [{"kv": "concat"}, "encoder"], ids=["a copied cache", "no cache"])
def test_only_a_cache_of_ours_is_int8(others: dict[str, Any] | str) -> None:
    facts = {**encoder_facts(), "cache": "int8"} if isinstance(others, str) else {**FACTS, **others, "cache": "int8"}
    with pytest.raises(CorruptBundle, match="cache 'int8'"):
        read(facts)


def encoder_facts() -> dict[str, Any]:
    facts = copy_of_facts()
    golden = [{"text": "hello", "tokens": [1, 2], "vector": [0.5] * 64}]
    embedding = {"pooling": "mean", "normalise": True, "max_tokens": 128, "dimension": 64, "golden": golden}
    facts.update(task="embed", embedding=embedding, golden=[])
    facts["tokens"]["eos"] = []  # it ends no answer
    return facts


def test_an_encoder_is_read_and_written() -> None:
    found = read(encoder_facts())
    assert found.embedding is not None
    assert found.embedding.golden[0].text == "hello"
    assert json.loads(found.to_bytes()) == encoder_facts()


def test_the_order_of_files_does_not_change_the_bytes() -> None:
    turned = copy_of_facts()
    turned["files"].reverse()
    assert read(turned).to_bytes() == read(FACTS).to_bytes()


@pytest.mark.parametrize("field", sorted(set(FACTS)))
def test_every_field_is_required(field: str) -> None:
    facts = copy_of_facts()
    del facts[field]
    with pytest.raises(CorruptBundle, match=r"bundle\.json"):
        read(facts)


@pytest.mark.parametrize("record", ["", "arch", "quant", "requires", "tokens", "source"])
def test_an_unknown_field_is_named(record: str) -> None:
    facts = copy_of_facts()
    (facts[record] if record else facts)["surprise"] = 1
    with pytest.raises(CorruptBundle, match="surprise"):
        read(facts)


@pytest.mark.parametrize("record", ["files", "golden"])
def test_an_unknown_field_of_a_list_is_named(record: str) -> None:
    facts = copy_of_facts()
    facts[record][0]["surprise"] = 1
    with pytest.raises(CorruptBundle, match="surprise"):
        read(facts)


def put(*way: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """A change of one fact."""

    def change(facts: Any) -> None:
        for step in way[:-1]:
            facts = facts[step]
        facts[way[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(put("format", value=0), id="format 0"),
        pytest.param(put("format", value="1"), id="format as text"),
        pytest.param(put("name", value=""), id="empty name"),
        pytest.param(put("name", value="a/b"), id="name with a slash"),
        pytest.param(put("name", value=".."), id="name that is a path"),
        pytest.param(put("name", value="x\n"), id="name with a newline"),
        pytest.param(put("name", value="x" * 201), id="name too long"),
        pytest.param(put("files", 0, "sha256", value="0" * 63), id="short hash"),
        pytest.param(put("files", 0, "sha256", value="A" * 64), id="upper-case hash"),
        pytest.param(put("files", 0, "size", value=-1), id="negative size"),
        pytest.param(put("files", 0, "size", value=1 << 60), id="absurd size"),
        pytest.param(put("files", 0, "size", value=1.5), id="fractional size"),
        pytest.param(put("files", 1, "path", value="model.onnx"), id="a file twice"),
        pytest.param(put("files", 1, "path", value=""), id="empty path"),
        pytest.param(put("tokens", "eos", value=[]), id="no end-of-text token"),
        pytest.param(put("tokens", "eos", value=[300]), id="end-of-text token outside the vocabulary"),
        pytest.param(put("tokens", "eos", value=[-1]), id="negative token"),
        pytest.param(put("arch", "layers", value=0), id="no layers"),
        pytest.param(put("arch", "kv_heads", value=3), id="contradicting heads"),
        pytest.param(put("quant", "precision", value="int3"), id="unknown precision"),
        pytest.param(put("source", "kind", value="pickle"), id="unknown source"),
        pytest.param(put("cache", value="int4"), id="unknown type of cache"),
        pytest.param(put("golden", 0, "sure", value=-1), id="negative count"),
    ],
)
def test_a_wrong_value_is_a_damaged_bundle(change: Callable[[dict[str, Any]], None]) -> None:
    facts = copy_of_facts()
    change(facts)
    with pytest.raises(CorruptBundle, match="here"):
        read(facts)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a\\b", "C:\\x", "./a", "a//b", "a/", "a\x00b"])
def test_a_path_that_leaves_the_folder_has_an_error_of_its_own(path: str) -> None:
    facts = copy_of_facts()
    facts["files"][0]["path"] = path
    with pytest.raises(UnsafePath):
        read(facts)


def test_a_newer_format_is_refused_whatever_else_it_says() -> None:
    with pytest.raises(UnsupportedFormat, match=f"format {manifest.FORMAT + 1}"):
        read({"format": manifest.FORMAT + 1, "news": True})


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="not an object"),
        pytest.param(b'{"format": 1', id="cut off"),
        pytest.param(b'{"format": 1}\xff', id="not UTF-8"),
        pytest.param(b'{"format": 1, "x": ' + b"[" * 100_000, id="nested without end"),
        pytest.param(b'{"format": ' + b"9" * 5000 + b"}", id="a number without end"),
        pytest.param(b'{"format": NaN}', id="not a number"),
    ],
)
def test_what_is_not_json_is_a_damaged_bundle(raw: bytes) -> None:
    with pytest.raises(CorruptBundle, match="here"):
        manifest.parse(raw, path="here")


@given(st.data())
def test_a_changed_byte_never_escapes_as_another_error(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(FACTS).encode())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] = data.draw(st.integers(0, 255))
    try:
        found = manifest.parse(bytes(raw), path="here")
    except BundleError:
        return
    in_order = sorted(found.files, key=lambda entry: entry.path)  # as it is written
    again = manifest.parse(found.to_bytes(), path="here")
    assert again == msgspec.structs.replace(found, files=tuple(in_order))


def test_files_in_another_order_are_read_in_it_and_written_sorted() -> None:
    facts = copy_of_facts()
    facts["files"].reverse()
    found = read(facts)
    assert [entry.path for entry in found.files] == ["tokenizer.json", "model.onnx"]
    assert manifest.parse(found.to_bytes(), path="here").files == found.files[::-1]


@pytest.mark.parametrize(
    ("path", "safe"),
    [("\n", True), ("a\n", True), ("a/b\n", True), ("a/\n", True), ("..\n", True), ("\n/", False), ("a\n/..", False)],
)
def test_a_line_break_is_a_character_like_others(path: str, safe: bool) -> None:
    assert manifest.is_safe_path(path) == safe


@given(st.text(max_size=20))
def test_a_safe_path_is_one_that_stays_inside(path: str) -> None:
    parts = path.split("/")
    inside = not set(parts) & {"", ".", ".."} and not set(path) & set("\\:\x00")
    assert manifest.is_safe_path(path) == inside

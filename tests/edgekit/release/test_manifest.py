"""What a manifest can say, and everything that none may."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CorruptRelease, UnsupportedRelease
from edgekit.release import manifest
from edgekit.release.manifest import Release, parse
from tests.contents import make, noise

MADE = make({"model.onnx": noise(2500), "sub/tokenizer.json": b"x" * 1500, "empty": b""})
Json = dict[str, Any]
Change = Callable[[Json], object]


def changed(change: Change) -> bytes:
    found = json.loads(MADE.manifest)
    change(found)
    return json.dumps(found).encode()


def test_what_is_written_is_read() -> None:
    assert parse(MADE.manifest) == MADE.release
    assert MADE.release.to_bytes() == MADE.manifest
    assert MADE.release.id == "tiny-1"
    assert MADE.release.file_bytes == 2500 + 1500 + len(MADE.contents["bundle.json"])


def test_chunks_come_with_their_offsets() -> None:
    places = [(file.path, offset, chunk.size) for file, offset, chunk in MADE.release.chunks()]
    assert places[:3] == [("model.onnx", 0, 1000), ("model.onnx", 1000, 1000), ("model.onnx", 2000, 500)]


def first(found: Json) -> Any:
    return found["files"][0]["chunks"][0]


def put(field: str, value: Any) -> Change:
    return lambda found: found.update({field: value})


def put_file(field: str, value: Any, at: int = 0) -> Change:
    return lambda found: found["files"][at].update({field: value})


def put_chunk(at: int, value: Any) -> Change:
    return lambda found: first(found).__setitem__(at, value)


SIZE, SHA, PACK, OFFSET, STORED, CODEC = range(6)

WRONG: dict[str, Change] = {
    "b04 up": put_file("path", "../x"),
    "b04 absolute": put_file("path", "/x"),
    "b04 drive": put_file("path", "C:\\x"),
    "b04 device": put_file("path", "CON"),
    "b04 up in the middle": put_file("path", "a/../b"),
    "b04 case twins": put_file("path", "MODEL.onnx", 1),
    "b04 a file that is a folder": put_file("path", "sub", 0),
    "b04 not normal": put_file("path", "u\u0308", 0),
    "b04 300 characters": put_file("path", "a" * 300, 0),
    "b04 the same twice": lambda found: found["files"].append(found["files"][0]),
    "b04 a link": put_file("link", "/etc/passwd"),
    "b04 hidden": put_file("path", ".release.json"),
    "b05 gap": put_file("size", 2501),
    "b05 overlap": put_file("size", 2499),
    "b05 a chunk is missing": lambda found: found["files"][0]["chunks"].pop(),
    "b05 negative size": put_file("size", -1),
    "b05 2^63": put_file("size", 1 << 63),
    "b05 2^64": put_file("size", 1 << 64),
    "b05 a fraction": put_file("size", 2500.5),
    "b05 chunk of no length": put_chunk(SIZE, 0),
    "b05 negative chunk": put_chunk(SIZE, -1000),
    "b05 chunk of 2^63": put_chunk(SIZE, 1 << 63),
    "b05 chunk above 1 MiB": put_chunk(SIZE, (1 << 20) + 1),
    "b05 pack that is not there": put_chunk(PACK, 99),
    "b05 negative pack": put_chunk(PACK, -1),
    "b05 beyond the pack": put_chunk(OFFSET, 1 << 20),
    "b05 negative offset": put_chunk(OFFSET, -1),
    "b05 stored nowhere": put_chunk(STORED, 0),
    "b05 raw of another length": lambda found: (put_chunk(STORED, 999)(found), put_chunk(CODEC, "raw")(found)),
    "b05 unknown codec": put_chunk(CODEC, "lz4"),
    "b05 digest too short": put_chunk(SHA, "ab" * 31),
    "b05 digest in capitals": put_chunk(SHA, "AB" * 32),
    "b05 digest with a newline": put_chunk(SHA, "ab" * 31 + "a\n"),
    "b05 pack above 32 MiB": lambda found: found["packs"][0].__setitem__(1, (32 << 20) + 1),
    "b05 pack of nothing": lambda found: found["packs"][0].__setitem__(1, 0),
    "b05 sequence 0": put("sequence", 0),
    "b05 sequence too large": put("sequence", 1 << 53),
    "no files": put("files", []),
    "no bundle.json": lambda found: found["files"].pop(),
    "base of a model": put("base", "other"),
    "adapter without a base": put("kind", "adapter"),
    "unknown kind": put("kind", "program"),
    "unknown field": put("run", "rm"),
    "format 0": put("format", 0),
    "format as text": put("format", "1"),
    "no format": lambda found: found.pop("format"),
    "name with a slash": put("name", "a/b"),
    "name and version too long": put("name", "a" * 89),
    "a version that no number holds": put("requires", {"edgekit": "9" * 5000}),
    "agreement above 1": put("health", {"agreement": 1.1}),
    "a probe of no time": put("health", {"probe_s": 0}),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_manifest_is_refused(change: Change) -> None:
    with pytest.raises(CorruptRelease):
        parse(changed(change))


NO_JSON = {
    "nothing": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "not UTF-8": b'{"format": 1, "kind": "\xff"}',
    "deep": b"[" * 100_000,
    "deep in a field": b'{"format": 1, "x": ' + b"[" * 100_000,
    "NaN": MADE.manifest.replace(b'"sequence":1', b'"sequence":NaN'),
    "infinite": MADE.manifest.replace(b'"sequence":1', b'"sequence":1e999'),
    "more after it": MADE.manifest + b"{}",
    "too large": b" " * manifest.MAX_RELEASE_BYTES + b"{}",
}


@pytest.mark.parametrize("raw", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(CorruptRelease):
        parse(raw)


def test_b05_more_chunks_than_any_model_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert manifest.MAX_CHUNKS * manifest.MAX_CHUNK_BYTES == 1 << 38  # 256 GiB
    monkeypatch.setattr(manifest, "MAX_CHUNKS", sum(len(file.chunks) for file in MADE.release.files) - 1)
    with pytest.raises(CorruptRelease, match="chunks"):
        parse(MADE.manifest)


def test_a_newer_format_says_so_whatever_else_it_says() -> None:
    with pytest.raises(UnsupportedRelease, match="format 2"):
        parse(b'{"format": 2, "files": "somewhere else"}')


def test_an_adapter_has_a_base() -> None:
    made = make({"adapter.onnx_adapter": noise(100)}, kind="adapter")
    assert parse(made.manifest).base == "tiny"


@given(st.binary(max_size=200))
def test_h_any_bytes_are_a_manifest_or_a_clear_error(raw: bytes) -> None:
    try:
        parse(raw)
    except CorruptRelease as error:
        assert len(str(error)) < 1500


@given(st.integers(0, len(MADE.manifest) - 1), st.binary(max_size=3), st.integers(0, 40))
def test_h_a_damaged_manifest_is_read_or_refused_and_never_contradicts_itself(
    at: int, instead: bytes, cut: int
) -> None:
    raw = MADE.manifest[:at] + instead + MADE.manifest[at + cut :]
    try:
        release = parse(raw)
    except CorruptRelease:
        return
    for file in release.files:
        assert sum(chunk.size for chunk in file.chunks) == file.size
        assert all(chunk.offset + chunk.stored <= release.packs[chunk.pack].size for chunk in file.chunks)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(["files", "packs", "requires", "health", "base", "name", "format", "kind", "sequence"]), JSON)
def test_h_any_json_in_a_field_is_read_or_refused(field: str, value: Any) -> None:
    try:
        found = parse(changed(put(field, value)))
    except CorruptRelease:
        return
    assert isinstance(found, Release)


@given(st.integers(0, 5), JSON)
def test_h_any_json_in_a_chunk_is_read_or_refused(at: int, value: Any) -> None:
    try:
        parse(changed(put_chunk(at, value)))
    except CorruptRelease:
        return

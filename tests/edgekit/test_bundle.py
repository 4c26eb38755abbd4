"""A folder is a bundle only if every file is there, has its size, and the graph stays inside."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgekit import bundle, contract, manifest
from edgekit.arch import ModelArch, Rotary
from edgekit.bundle import Bundle, open_bundle, read_manifest
from edgekit.errors import BundleError, CorruptBundle, NotABundle, UnsafePath
from edgekit.manifest import FileEntry, Manifest, Recipe, Requirements, Source, SpecialTokens

ARCH = ModelArch(
    model_type="llama",
    layers=1,
    hidden=4,
    heads=1,
    kv_heads=1,
    head_dim=4,
    intermediate=4,
    vocab=10,
    context=8,
    norm_eps=1e-5,
    rotary=Rotary(dim=4, base=1e4),
    activation="silu",
    tied=True,
)


def field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field of fewer than 128 bytes."""
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def graph(location: str, *, offset: int = 0, length: int | None = None) -> bytes:
    """An ONNX file whose one initializer is kept in `location`."""
    facts = {"location": location, "offset": str(offset)} | ({} if length is None else {"length": str(length)})
    entries = b"".join(field(13, field(1, k.encode()) + field(2, v.encode())) for k, v in facts.items())
    return field(7, field(5, field(8, b"w") + entries + b"\x70\x01"))


GOOD = {
    contract.MODEL_FILE: graph(contract.DATA_FILE, offset=2, length=6),
    contract.DATA_FILE: b"12345678",
    contract.TOKENIZER_FILE: b"{}",
}


PROMPT_GRAPH = graph(contract.PREFILL_DATA, offset=1 << 40, length=9)


def write(folder: Path, files: dict[str, bytes]) -> Manifest:
    """A bundle of `files`."""
    entries = tuple(FileEntry(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items())
    for name, data in files.items():
        (folder / name).write_bytes(data)
    facts = Manifest(
        format=manifest.FORMAT,
        name="tiny",
        version="1",
        arch=ARCH,
        quant=Recipe(precision="int4", method="rtn", weights={}),
        files=entries,
        requires=Requirements(onnxruntime="1.31", disk_bytes=0, weight_bytes=0, kv_bytes_per_token=0),
        tokens=SpecialTokens(eos=(1,)),
        source=Source(kind="gguf", file="tiny.gguf"),
        quality={},
        golden=(),
    )
    (folder / contract.MANIFEST_FILE).write_bytes(facts.to_bytes())
    return facts


def test_a_whole_bundle_opens(tmp_path: Path) -> None:
    facts = write(tmp_path, GOOD)
    opened = open_bundle(tmp_path)
    assert opened.manifest == msgspec.structs.replace(facts, files=opened.manifest.files)
    assert opened.has(contract.TOKENIZER_FILE)
    assert opened.read(contract.TOKENIZER_FILE, limit_bytes=2) == b"{}"
    assert bundle.problems(opened) == []


def edit(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def link(name: str) -> Callable[[Path], object]:
    """The file becomes a link to a copy of itself outside the bundle."""

    def change(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        pytest.param(lambda f: (f / contract.DATA_FILE).unlink(), CorruptBundle, "is missing", id="missing file"),
        pytest.param(edit(contract.DATA_FILE, b"1234567"), CorruptBundle, "7 bytes, not 8", id="short file"),
        pytest.param(edit(contract.MANIFEST_FILE, b"{}"), CorruptBundle, r"bundle\.json", id="empty manifest"),
        pytest.param(lambda f: (f / contract.MANIFEST_FILE).unlink(), NotABundle, r"no bundle\.json", id="no manifest"),
        pytest.param(link(contract.DATA_FILE), UnsafePath, "symbolic link", id="linked file"),
    ],
)
def test_a_changed_folder_does_not_open(
    tmp_path: Path, change: Callable[[Path], object], error: type[BundleError], said: str
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write(folder, GOOD)
    change(folder)
    with pytest.raises(error, match=said):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        pytest.param(graph("../secret"), UnsafePath, r"\.\./secret", id="outside"),
        pytest.param(graph("/etc/passwd"), UnsafePath, "/etc/passwd", id="absolute"),
        pytest.param(graph(""), UnsafePath, "''", id="nowhere"),
        pytest.param(graph("other"), CorruptBundle, "not listed", id="unlisted"),
        pytest.param(graph(contract.DATA_FILE, offset=4, length=5), CorruptBundle, "beyond the end", id="too long"),
        pytest.param(graph(contract.DATA_FILE, offset=9), CorruptBundle, "beyond the end", id="starts behind the end"),
        pytest.param(graph(contract.DATA_FILE, offset=-1), CorruptBundle, "beyond the end", id="negative offset"),
        pytest.param(graph(contract.DATA_FILE, length=-1), CorruptBundle, "beyond the end", id="negative length"),
        pytest.param(b"not onnx", CorruptBundle, "not an ONNX file", id="rubbish"),
    ],
)
def test_a_graph_that_reaches_out_does_not_open(
    tmp_path: Path, model: bytes, error: type[BundleError], said: str
) -> None:
    write(tmp_path, GOOD | {contract.MODEL_FILE: model})
    with pytest.raises(error, match=said):
        open_bundle(tmp_path)


def test_a_bundle_without_a_graph_does_not_open(tmp_path: Path) -> None:
    write(tmp_path, {contract.TOKENIZER_FILE: b"{}"})
    with pytest.raises(CorruptBundle, match=contract.MODEL_FILE):
        open_bundle(tmp_path)


def test_a_changed_byte_of_the_same_size_is_found_by_its_hash(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / contract.DATA_FILE).write_bytes(b"12345679")
    opened = open_bundle(tmp_path)
    assert bundle.changed_files(opened) == [contract.DATA_FILE]
    (problem,) = bundle.problems(opened)
    assert "SHA-256" in str(problem)


def test_every_problem_is_listed_not_only_the_first(tmp_path: Path) -> None:
    facts = write(tmp_path, GOOD)
    (tmp_path / contract.DATA_FILE).unlink()
    (tmp_path / contract.TOKENIZER_FILE).write_bytes(b"longer")
    found = [str(problem) for problem in bundle.problems(Bundle(tmp_path, facts))]
    assert len(found) == 2
    assert contract.DATA_FILE in found[0]
    assert contract.TOKENIZER_FILE in found[1]


@pytest.mark.parametrize("kind", ["missing", "file", "empty folder"])
def test_what_is_not_a_bundle_is_called_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "file":
        path.write_bytes(b"")
    elif kind == "empty folder":
        path.mkdir()
    with pytest.raises(NotABundle, match="thing"):
        read_manifest(path)


def test_a_huge_manifest_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    monkeypatch.setattr(bundle, "MAX_MANIFEST_BYTES", 10)
    with pytest.raises(CorruptBundle, match="larger than 10 bytes"):
        read_manifest(tmp_path)


def test_only_listed_files_are_opened_and_only_up_to_a_limit(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "unlisted").write_bytes(b"x")
    opened = open_bundle(tmp_path)
    assert not opened.has("unlisted")
    with pytest.raises(CorruptBundle, match="it has no unlisted"):
        opened.path("unlisted")
    with pytest.raises(CorruptBundle, match="larger than 7 bytes"):
        opened.read(contract.DATA_FILE, limit_bytes=7)


def test_the_prompt_s_graph_may_name_the_one_file_that_devices_derive(tmp_path: Path) -> None:
    write(tmp_path, GOOD | {contract.PREFILL_FILE: PROMPT_GRAPH})
    assert open_bundle(tmp_path).has(contract.PREFILL_FILE)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({contract.PREFILL_FILE: graph("other.data")}, id="another file"),
        pytest.param({contract.PREFILL_FILE: graph("../prefill.onnx.data")}, id="a file outside"),
        pytest.param({contract.PREFILL_FILE: graph(contract.DATA_FILE, offset=8, length=1)}, id="beyond the end"),
        pytest.param({contract.MODEL_FILE: PROMPT_GRAPH}, id="the decoder's graph"),
        pytest.param({"deep/prefill.onnx": PROMPT_GRAPH}, id="a graph of that name elsewhere"),
    ],
)
def test_no_other_graph_and_no_other_file_is_spared(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, GOOD | files)
    with pytest.raises(BundleError):
        open_bundle(tmp_path)

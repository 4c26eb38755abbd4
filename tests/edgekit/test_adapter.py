"""adapter.json is read strictly, and an adapter beside another model than its own is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit import contract
from edgekit.adapter import MAX_MANIFEST_BYTES, check, fingerprint, linear_parts, linears, open_adapter, parse
from edgekit.bundle import open_bundle
from edgekit.errors import BundleError, CorruptBundle, NotABundle, UnsafePath, UnsupportedFormat, WrongBase
from tests.device_agent.bundles import ADAPTABLE, CONCAT, TINY, TWIN, WARM
from tests.device_agent.hostile_adapters import copy_of, rewrite

Change = Callable[[dict[str, Any]], object]


def test_it_is_written_as_it_is_read() -> None:
    raw = (WARM / contract.ADAPTER_MANIFEST_FILE).read_bytes()
    assert parse(raw, path="x").to_bytes() == raw


@pytest.mark.parametrize("folder", sorted(WARM.parent.iterdir()), ids=lambda folder: folder.name)
def test_every_adapter_that_was_ever_made_is_still_read(folder: Path) -> None:
    check(open_adapter(folder), open_bundle(ADAPTABLE))


REFUSED: dict[str, tuple[Change, type[BundleError], str]] = {
    "a newer format": (lambda m: m.update(format=2), UnsupportedFormat, "format 2"),
    "format 0": (lambda m: m.update(format=0), CorruptBundle, "format 0"),
    "a field that nobody knows": (lambda m: m.update(run="this"), CorruptBundle, "run"),
    "a missing field": (lambda m: m.pop("base"), CorruptBundle, "base"),
    "a name that would split a model's": (lambda m: m.update(name="a:b"), CorruptBundle, "name"),
    "a name with a strategy": (lambda m: m.update(name="a@b"), CorruptBundle, "name"),
    "no ranks": (lambda m: m.update(ranks={}), CorruptBundle, "ranks"),
    "rank 0": (lambda m: m["ranks"].update({"layers.0.o": 0}), CorruptBundle, "ranks"),
    "an absurd rank": (lambda m: m["ranks"].update({"layers.0.o": 1 << 40}), CorruptBundle, "ranks"),
    "a fingerprint that is none": (lambda m: m["base"].update(fingerprint="0"), CorruptBundle, "fingerprint"),
    "no weights": (lambda m: m["files"][0].update(path="other"), CorruptBundle, "adapter.onnx_adapter"),
    "a file twice": (lambda m: m["files"].append(dict(m["files"][0])), CorruptBundle, "twice"),
    "a file outside": (lambda m: m["files"][0].update(path="../x"), UnsafePath, r"\.\./x"),
    "a file that is not there": (
        lambda m: m["files"].append({"path": "y", "size": 1, "sha256": "0" * 64}), CorruptBundle, "y is missing",
    ),
    "another size": (lambda m: m["files"][0].update(size=1), CorruptBundle, "does not have 1 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_with_a_manifest_is_named(
    change: Change, error: type[BundleError], words: str, tmp_path: Path
) -> None:
    folder = copy_of(WARM, tmp_path)
    rewrite(folder, change)
    with pytest.raises(error, match=words):
        open_adapter(folder)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"format": "1"}', b"\xff", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(CorruptBundle):
        parse(raw, path="x")


def test_a_manifest_without_end_is_not_read(tmp_path: Path) -> None:
    folder = copy_of(WARM, tmp_path)
    with (folder / contract.ADAPTER_MANIFEST_FILE).open("r+b") as stream:
        stream.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(CorruptBundle, match="larger than"):
        open_adapter(folder)


def test_a_folder_without_one_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(NotABundle, match=r"adapter\.json"):
        open_adapter(tmp_path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = copy_of(WARM, tmp_path)
    weights = folder / contract.ADAPTER_WEIGHTS_FILE
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePath):
        open_adapter(folder)


MISFITS: dict[str, tuple[Change, type[BundleError], str]] = {
    "a linear that is not there": (
        lambda m: m["ranks"].update({"layers.7.o": 1}), WrongBase, "layers.7.o",
    ),
    "a matrix instead of a linear": (lambda m: m["ranks"].update({"layers.0.q": 1}), WrongBase, "layers.0.q"),
    "another model": (lambda m: m["base"].update(fingerprint="0" * 64), WrongBase, "other weights"),
    "ranks that the file has no room for": (lambda m: m["ranks"].update({"layers.0.o": 4096}), CorruptBundle, "bytes"),
    "ranks that leave much over": (lambda m: m.update(ranks={"layers.0.o": 1}), CorruptBundle, "bytes"),
    "another hash": (lambda m: m["files"][0].update(sha256="0" * 64), CorruptBundle, "SHA-256"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "words"), MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_the_base_is_refused_before_it_is_read(
    change: Change, error: type[BundleError], words: str, tmp_path: Path
) -> None:
    folder = copy_of(WARM, tmp_path)
    rewrite(folder, change)
    with pytest.raises(error, match=words):
        check(open_adapter(folder), open_bundle(ADAPTABLE))


@pytest.mark.parametrize("base", [TINY, CONCAT], ids=lambda folder: folder.name)
def test_a_bundle_without_the_graph_takes_none(base: Path) -> None:
    with pytest.raises(WrongBase, match=r"no model-adapters\.onnx"):
        check(open_adapter(WARM), open_bundle(base))


def test_a_fingerprint_is_the_model_s_and_not_the_bundle_s() -> None:
    made = json.loads((WARM / contract.ADAPTER_MANIFEST_FILE).read_bytes())["base"]["fingerprint"]
    assert fingerprint(open_bundle(ADAPTABLE)) == fingerprint(open_bundle(TWIN)) == made
    assert fingerprint(open_bundle(CONCAT)) != made


def test_linears_are_made_of_their_parts() -> None:
    arch = open_bundle(ADAPTABLE).manifest.arch
    for linear, (inputs, outputs) in linears(arch).items():
        parts = linear_parts(arch, linear).values()
        assert {each for each, _ in parts} == {inputs}
        assert sum(each for _, each in parts) == outputs

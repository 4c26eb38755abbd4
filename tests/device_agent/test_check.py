"""`edgekit verify`: whole bundles pass for ever, and every kind of damage is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.check import verify
from edgekit import cli, contract
from edgekit.bundle import read_manifest
from edgekit.errors import BundleError
from tests.device_agent.bundles import CONCAT, ENCODER, FILES, FOLDERS, TINY, copy_to, edit, seal, set_fields

Damage = Callable[[Path], None]


def problems(folder: Path) -> list[BundleError]:
    return verify(folder, lambda _: None)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_past_bundles_verify_for_ever(folder: Path) -> None:
    assert problems(folder) == []
    manifest = read_manifest(folder)
    assert manifest.embedding is not None or sum(golden.sure for golden in manifest.golden) >= 1


def test_the_steps_are_told_in_order() -> None:
    steps: list[str] = []
    verify(TINY, steps.append)
    assert steps[:2] == ["files, hashes and paths", "loading"]
    assert len(steps) == 2 + len(read_manifest(TINY).golden)


def test_an_encoder_s_steps_are_told_in_order() -> None:
    steps: list[str] = []
    verify(ENCODER, steps.append)
    assert steps[2:] == ["golden text 1 of 3", "golden text 2 of 3", "golden text 3 of 3"]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found_in_every_file(tmp_path: Path, name: str) -> None:
    folder = copy_to(tmp_path)
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    (problem,) = problems(folder)
    assert type(problem).__name__ == "CorruptBundle"
    assert name in problem.problem


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = copy_to(tmp_path)
    (folder / name).unlink()
    (problem,) = problems(folder)
    assert problem.problem == f"{name} is missing"


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    for name in FILES:
        (folder / name).unlink()
    assert len(problems(folder)) == len(FILES)


def test_files_that_nobody_lists_are_ignored(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    (folder / "notes.txt").write_text("mine")
    (folder / "other.onnx").write_bytes(b"\xff")
    assert problems(folder) == []


def _longer_data(folder: Path) -> None:
    with (folder / contract.DATA_FILE).open("ab") as stream:
        stream.write(b"\0")


def _symlink(folder: Path) -> None:
    moved = (folder / contract.DATA_FILE).rename(folder.parent / "elsewhere")
    (folder / contract.DATA_FILE).symlink_to(moved)


def _weights_at(location: str) -> Damage:
    assert len(location) == len(contract.DATA_FILE)

    def apply(folder: Path) -> None:
        graph = folder / contract.MODEL_FILE
        raw = graph.read_bytes()
        assert contract.DATA_FILE.encode() in raw
        graph.write_bytes(raw.replace(contract.DATA_FILE.encode(), location.encode()))
        seal(folder)

    return apply


def _graph_of(content: bytes) -> Damage:
    def apply(folder: Path) -> None:
        (folder / contract.MODEL_FILE).write_bytes(content)
        seal(folder)

    return apply


def _manifest_of(content: bytes) -> Damage:
    def apply(folder: Path) -> None:
        (folder / contract.MANIFEST_FILE).write_bytes(content)

    return apply


def _golden(**fields: Any) -> Damage:
    return lambda folder: edit(folder, lambda manifest: manifest["golden"][0].update(fields))


def _wrong_golden_token(folder: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        tokens = manifest["golden"][0]["tokens"]
        tokens[0] = (tokens[0] + 1) % manifest["arch"]["vocab"]

    edit(folder, change)


HUGE = (1 << 24) - 1
DAMAGES: dict[str, tuple[Damage, str, int, str]] = {
    "a file that grew": (_longer_data, "CorruptBundle", 33, "bytes, not"),
    "a symbolic link": (_symlink, "UnsafePath", 34, "symbolic link"),
    "weights above the folder": (_weights_at("../../etc/passw"), "UnsafePath", 34, "../../etc/passw"),
    "weights at an absolute path": (_weights_at("/etc/machine-id"), "UnsafePath", 34, "/etc/machine-id"),
    "weights in an unlisted file": (_weights_at("other.onnx.data"), "CorruptBundle", 33, "not listed"),
    "weights beyond the file": (lambda folder: _cut(folder, 1000), "CorruptBundle", 33, "beyond the end"),
    "an empty graph": (_graph_of(b""), "CorruptBundle", 33, "model.onnx"),
    "a graph that is no protobuf": (_graph_of(b"\xff" * 100), "CorruptBundle", 33, "not an ONNX file"),
    "no manifest": (lambda folder: (folder / "bundle.json").unlink(), "NotABundle", 31, "has no bundle.json"),
    "an empty manifest": (_manifest_of(b""), "CorruptBundle", 33, "bundle.json"),
    "a manifest that is a list": (_manifest_of(b"[]"), "CorruptBundle", 33, "bundle.json"),
    "an unknown field": (set_fields(surprise=1), "CorruptBundle", 33, "surprise"),
    "a newer format": (set_fields(format=99), "UnsupportedFormat", 32, "format 99"),
    "a newer onnxruntime": (set_fields(requires__onnxruntime="99.1"), "UnsupportedFormat", 32, "99.1"),
    "no onnxruntime version": (set_fields(requires__onnxruntime="new"), "CorruptBundle", 33, "'new'"),
    "a negative size": (set_fields(requires__disk_bytes=-1), "CorruptBundle", 33, "disk_bytes"),
    "a width of zero": (set_fields(arch__hidden=0), "CorruptBundle", 33, "hidden"),
    "absurdly many layers": (set_fields(arch__layers=HUGE), "CorruptBundle", 33, "layers"),
    "absurdly wide heads": (set_fields(arch__head_dim=HUGE), "CorruptBundle", 33, "past_key_values.0.key"),
    "absurdly many heads": (
        set_fields(arch__heads=HUGE, arch__kv_heads=HUGE),
        "CorruptBundle",
        33,
        "past_key_values.0.key",
    ),
    "an absurd vocabulary": (set_fields(arch__vocab=HUGE), "CorruptBundle", 33, "logits"),
    "one layer less than the graph": (set_fields(arch__layers=1), "CorruptBundle", 33, "1 layers"),
    "wrong golden tokens": (_wrong_golden_token, "CorruptBundle", 33, "golden prompt 1 gives"),
    "an empty golden prompt": (_golden(prompt=[]), "CorruptBundle", 33, "golden prompt 1"),
    "a golden prompt of unknown ids": (_golden(prompt=[320]), "CorruptBundle", 33, "beyond the vocabulary"),
    "a golden prompt beyond the context": (_golden(prompt=[5] * 2048), "CorruptBundle", 33, "golden prompt 1"),
    "more sure tokens than tokens": (_golden(sure=1 << 60), "CorruptBundle", 33, "golden prompt 1"),
}


def _cut(folder: Path, size: int) -> None:
    (folder / contract.DATA_FILE).write_bytes((folder / contract.DATA_FILE).read_bytes()[:size])
    seal(folder)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_has_its_exit_code(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, kind, exit_code, words = DAMAGES[name]
    folder = copy_to(tmp_path)
    damage(folder)
    found = problems(folder)
    assert [type(problem).__name__ for problem in found][:1] == [kind]
    assert words in str(found[0])
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", str(folder), "--json"])
    assert ended.value.code == exit_code
    told = json.loads(capsys.readouterr().out)
    assert told == {"ok": False, "problems": [str(problem) for problem in found]}


def _golden_text(**fields: Any) -> Damage:
    return lambda folder: edit(folder, lambda manifest: manifest["embedding"]["golden"][1].update(fields))


OTHER_DAMAGES: dict[str, tuple[Path, Damage, str]] = {
    "a cache of another kind": (CONCAT, set_fields(kv="shared"), "not the graph"),
    "a shared cache called concat": (TINY, set_fields(kv="concat", arch__layers=3), "not the graph"),
    "an unknown kind of cache": (TINY, set_fields(kv="paged"), "kv"),
    "one layer more than a graph of optimum's": (CONCAT, set_fields(arch__layers=3), "3 layers"),
    "wider heads than a graph of optimum's": (CONCAT, set_fields(arch__head_dim=32), "past_key_values.0.key"),
    "wrong golden tokens over a copied cache": (CONCAT, _wrong_golden_token, "golden prompt 1 gives"),
    "an encoder that is said to write": (ENCODER, set_fields(task="generate"), "task 'generate'"),
    "a decoder that is said to make vectors": (TINY, set_fields(task="embed"), "task 'embed'"),
    "vectors of another width": (ENCODER, set_fields(embedding__dimension=32), "32 values"),
    "an encoder of another width": (ENCODER, set_fields(arch__hidden=32, embedding__dimension=32), "golden vector"),
    "an unknown pooling": (ENCODER, set_fields(embedding__pooling="max"), "pooling"),
    "another pooling": (ENCODER, set_fields(embedding__pooling="cls"), "golden text 1 has another vector"),
    "no limit of tokens": (ENCODER, set_fields(embedding__max_tokens=0), "max_tokens"),
    "a golden text of other tokens": (ENCODER, _golden_text(text="hello"), "golden text 2 has the tokens"),
    "a golden text with another vector": (ENCODER, _golden_text(vector=[1.0] * 64), "golden text 2 has another"),
    "a golden text that is too long": (ENCODER, _golden_text(text="x" * 100), "golden text 2 fails"),
    "a golden text of unknown ids": (ENCODER, _golden_text(tokens=[320]), "beyond the vocabulary"),
}


@pytest.mark.parametrize("name", OTHER_DAMAGES)
def test_damage_of_other_kinds_of_bundles_is_named(name: str, tmp_path: Path) -> None:
    source, damage, words = OTHER_DAMAGES[name]
    folder = copy_to(tmp_path, source)
    damage(folder)
    (problem,) = problems(folder)
    assert type(problem).__name__ == "CorruptBundle"
    assert words in str(problem)


def test_something_that_is_no_folder_is_not_a_bundle(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert [problem.exit_code for problem in problems(file) + problems(tmp_path / "nothing")] == [31, 31]


def test_tokens_that_are_not_sure_may_differ(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)

    def change(manifest: dict[str, Any]) -> None:
        golden = manifest["golden"][0]
        golden["tokens"][golden["sure"]] ^= 1

    edit(folder, change)
    assert problems(folder) == []


def test_a_golden_prompt_without_sure_tokens_proves_nothing_and_is_no_problem(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    _golden(sure=0)(folder)
    assert problems(folder) == []

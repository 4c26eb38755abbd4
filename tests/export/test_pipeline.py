import errno
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from edgekit import contract
from edgekit.bundle import open_bundle, problems
from edgekit.contract import CACHE_TYPES
from edgekit.errors import (
    BudgetTooSmall,
    CalibrationTooShort,
    DiskFull,
    EdgekitError,
    ExportError,
    OutputExists,
    UnsupportedCheckpoint,
    UsageError,
)
from edgekit.quant import PRECISIONS, Precision
from export import pipeline
from export.job import ExportJob
from export.pipeline import export
from tests import tiny
from tests.export.exports import Decoder, export_tiny
from tests.export.silent import Heard

LONG = tiny.Config(context=4096)
MAX_KL: dict[Precision, float] = {"fp32": 1e-6, "int8": 0.02, "int4": 2.0}
"""Nats. Rounding hurts random weights far more than trained ones."""
SOURCES: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: tiny.write_hf_folder(path, LONG),
    "folder in shards, bfloat16": lambda path: tiny.write_hf_folder(path, LONG, shards=3, dtype="bfloat16"),
    "tied": lambda path: tiny.write_hf_folder(path, tiny.Config(tied=True)),
    "biases": lambda path: tiny.write_hf_folder(path, tiny.Config(attention_bias=True, mlp_bias=True)),
    "gelu": lambda path: with_gelu(tiny.write_hf_folder(path)),
    "F16 file": lambda path: tiny.write_gguf(path.with_suffix(".gguf"), LONG),
    "tied Q4_1 file": lambda path: tiny.write_gguf(
        path.with_suffix(".gguf"), tiny.Config(tied=True), tensor_type="Q4_1"
    ),
    "Q4_0 file with biases": lambda path: tiny.write_gguf(
        path.with_suffix(".gguf"), tiny.Config(attention_bias=True), tensor_type="Q4_0"
    ),
    "tied Q8_0 file": lambda path: tiny.write_gguf(
        path.with_suffix(".gguf"), tiny.Config(tied=True), tensor_type="Q8_0"
    ),
}


class Usage(NamedTuple):
    """What shutil.disk_usage returns."""

    total: int
    used: int
    free: int


def with_gelu(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_pytorch_tanh"}))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write_hf_folder(tmp_path / "in" / "tiny")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    return tmp_path / "made" / "bundle"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_becomes_a_bundle(name: str, precision: Precision, tmp_path: Path, out: Path) -> None:
    source = SOURCES[name](tmp_path / "tiny")
    manifest = export_tiny(source, out, precision)

    bundle = open_bundle(out)
    assert problems(bundle) == []
    assert bundle.manifest == manifest
    assert manifest.name == "tiny"
    assert (manifest.version, manifest.quant.precision) == ("1", precision)
    assert manifest.source.kind == ("gguf" if source.suffix else "huggingface")
    assert manifest.tokens.eos[0] == tiny.IM_END
    assert manifest.quality["verification_error"] < 1e-4
    assert manifest.quality["kl"] < MAX_KL[precision]
    assert manifest.requires.weight_bytes == (out / contract.DATA_FILE).stat().st_size
    assert {path.name for path in out.iterdir()} == {
        contract.MODEL_FILE,
        contract.DATA_FILE,
        contract.MANIFEST_FILE,
        contract.GENAI_FILE,
        contract.TOKENIZER_FILE,
        contract.TOKENIZER_CONFIG_FILE,
        contract.CHAT_TEMPLATE_FILE,
        contract.CARD_FILE,
        contract.ADAPTERS_FILE,
        *([] if precision == "fp32" else [contract.PREFILL_FILE]),
    }
    assert ("prompt_kl" in manifest.quality) == (precision != "fp32")
    assert manifest.format == (1 if precision == "fp32" else 2)  # what older readers can read, they may


@pytest.mark.parametrize("name", ["folder", "tied Q8_0 file"])
def test_an_int8_cache_takes_a_quarter_and_costs_little(name: str, tmp_path: Path, out: Path) -> None:
    source = SOURCES[name](tmp_path / "tiny")
    floats = export(ExportJob(source, tmp_path / "floats", "fp32"), Heard())
    manifest = export(ExportJob(source, out, "fp32", kv="int8"), Heard())
    assert (floats.cache, manifest.cache) == ("float32", "int8")
    assert manifest.requires.kv_bytes_per_token * 4 == floats.requires.kv_bytes_per_token
    assert manifest.quality["verification_error"] < 1e-4
    assert 1e-6 < manifest.quality["kl"] < 0.01
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "floats").iterdir()}
    assert problems(open_bundle(out)) == []
    assert b'"cache"' not in (tmp_path / "floats" / contract.MANIFEST_FILE).read_bytes()
    assert "int8" in (out / contract.CARD_FILE).read_text()


def test_the_greedy_tokens_of_an_int8_cache_are_near(source: Path, tmp_path: Path, out: Path) -> None:
    export(ExportJob(source, tmp_path / "floats", "fp32"), Heard())
    manifest = export(ExportJob(source, out, "fp32", kv="int8"), Heard())
    floats, codes = (Decoder(folder, manifest.arch) for folder in (tmp_path / "floats", out))
    equal = [
        one == other
        for golden in manifest.golden
        for one, other in zip(
            floats.greedy(list(golden.prompt[-40:]), 12), codes.greedy(list(golden.prompt[-40:]), 12), strict=True
        )
    ]
    assert sum(equal) >= len(equal) / 2


def test_scales_are_calibrated_by_the_pass_that_rounds(source: Path, out: Path) -> None:
    heard = Heard()
    export(ExportJob(source, out, method="gptq", kv="int8"), heard)
    assert [stage for stage in heard.stages if "calibration" in stage or "layer by layer" in stage] == [
        "writing calibration text with the model itself",
        "rounding layer by layer (GPTQ)",
    ]


def test_scales_alone_need_less_text(source: Path, out: Path) -> None:
    heard = Heard()
    export(ExportJob(source, out, kv="int8"), heard)
    assert "measuring keys and values layer by layer" in heard.stages
    assert (16 * 256, 16 * 256) in heard.advances  # rows as long as the context


def test_scales_come_from_the_text_that_was_given(source: Path, tmp_path: Path, out: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(random.Random(5).choices(range(32, 127), k=9000)))
    heard = Heard()
    export(ExportJob(source, out, kv="int8", calibration=text), heard)
    assert not any("calibration text" in stage for stage in heard.stages)
    export(ExportJob(source, out.with_name("self"), kv="int8"), Heard())
    assert (out / contract.DATA_FILE).read_bytes() != (out.with_name("self") / contract.DATA_FILE).read_bytes()
    text.write_text("hello")
    with pytest.raises(CalibrationTooShort):
        export(ExportJob(source, out.with_name("short"), kv="int8", calibration=text), heard)
    assert not out.with_name("short").exists()


@pytest.mark.parametrize("rotate", [False, True])
def test_an_int8_cache_goes_with_budgets_and_rotation(rotate: bool, source: Path, out: Path) -> None:
    manifest = export(ExportJob(source, out, kv="int8", size_budget=250_000, rotate=rotate), Heard())
    sizes = {entry.path: entry.size for entry in manifest.files}
    assert sizes[contract.MODEL_FILE] + sizes[contract.DATA_FILE] <= 250_000
    assert manifest.cache == "int8"


def test_a_budget_counts_the_scales(source: Path, tmp_path: Path) -> None:
    taken = {}
    for kv in CACHE_TYPES:
        with pytest.raises(BudgetTooSmall, match="alone take") as caught:
            export(ExportJob(source, tmp_path / kv, kv=kv, size_budget=1), Heard())
        taken[kv] = int("".join(re.findall(r"take ([\d,]+) bytes", str(caught.value))).replace(",", ""))
    assert taken["int8"] - taken["float32"] == 4 * 2 * 2 * 2 * 16  # keys and values of two layers, two heads of 16


def test_names_and_version_are_those_that_were_given(source: Path, out: Path) -> None:
    manifest = export(ExportJob(source, out, "fp32", "my-model", "2026.1"), Heard())
    assert (manifest.name, manifest.version) == ("my-model", "2026.1")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M.Q4_1.gguf", "SmolLM2-135M.Q4_1"),
        ("my model (1)", "my-model-1"),
        ("_private", "private"),
        ("Größe", "Gr-e"),
        ("中文", "model"),
        ("x" * 250, "x" * 200),
        ("a.gguf.gguf", "a.gguf"),
    ],
)
def test_a_name_is_made_from_the_source_s(file: str, name: str, tmp_path: Path) -> None:
    assert pipeline._name(ExportJob(tmp_path / file, tmp_path)) == name


@pytest.mark.parametrize("value", ["", "two words", "-x", "a/b", "a" * 201, "é", "a\n"])
@pytest.mark.parametrize("field", ["name", "version"])
def test_a_name_that_a_manifest_could_not_hold_is_refused_at_once(field: str, value: str, tmp_path: Path) -> None:
    name, version = (value, "1") if field == "name" else ("good", value)
    with pytest.raises(UsageError, match=f"--{field}"):
        export(ExportJob(tmp_path / "nothing here", tmp_path / "out", "int4", name, version), Heard())


def test_progress_tells_stages_and_bytes(source: Path, out: Path) -> None:
    heard = Heard()
    export(ExportJob(source, out), heard)
    assert heard.stages[0] == "reading tiny"
    assert len(heard.stages) == 8
    done, totals = zip(*heard.advances, strict=True)
    assert list(done) == sorted(set(done))
    assert set(totals) == {done[-1]}


def boom(error: BaseException) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    "place", ["verify.against_reference", "decoder.build", "pack.write_text_files", "pack.finish", "decoder.onnx.save"]
)
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("a bug"), RuntimeError),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
        (ExportError("no"), ExportError),
    ],
    ids=["Ctrl-C", "bug", "disk full", "error"],
)
def test_a_failure_leaves_nothing_behind(
    place: str,
    error: BaseException,
    seen: type[BaseException],
    source: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"export.pipeline.{place}", boom(error))
    with pytest.raises(seen):
        export_tiny(source, out)
    assert list(out.parent.iterdir()) == []


def test_an_output_that_exists_is_not_touched(source: Path, out: Path) -> None:
    out.mkdir()
    (out / "mine").write_text("keep")
    with pytest.raises(OutputExists, match="exists already"):
        export_tiny(source, out)
    assert [path.name for path in out.parent.rglob("*")] == ["bundle", "mine"]


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = export_tiny(source, out).requires.weight_bytes
    shutil.rmtree(out)
    monkeypatch.setattr("export.pipeline.decoder.build", boom(AssertionError("it began to write")))
    monkeypatch.setattr(
        "edgekit.files.shutil.disk_usage", lambda _: Usage(1 << 40, 0, needed - (1 << 15))
    )  # vectors are not counted
    with pytest.raises(DiskFull):
        export_tiny(source, out)
    assert list(out.parent.iterdir()) == []


def test_a_source_without_a_tokenizer_fails_before_anything_is_written(source: Path, out: Path) -> None:
    (source / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedCheckpoint, match=r"tokenizer\.json"):
        export_tiny(source, out)
    assert list(out.parent.iterdir()) == []


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, out: Path) -> None:
    values = tiny.weights()
    values["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    with pytest.raises(EdgekitError, match=r"layers\.1\.mlp\.up_proj"):
        export_tiny(tiny.write_hf_folder(tmp_path / "tiny", values=values), out)
    assert list(out.parent.iterdir()) == []


def test_the_same_source_gives_the_same_bytes(source: Path, out: Path, tmp_path: Path) -> None:
    first, second = export_tiny(source, out, "int4"), export_tiny(source, tmp_path / "again", "int4")
    changing = {contract.MANIFEST_FILE, contract.CARD_FILE}  # measured numbers may differ in their last digit
    assert [e for e in first.files if e.path not in changing] == [e for e in second.files if e.path not in changing]

"""Exports that calibrate, choose, or keep what a checkpoint quantised already: whole bundles of tiny models."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf.quants
import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit import contract
from edgekit.bundle import open_bundle, problems
from edgekit.errors import BudgetTooSmall, CalibrationTooShort, DiskFull, EdgekitError, QualityTooLow, UsageError
from edgekit.manifest import Manifest
from export.job import ExportJob
from export.matrices import BundleMatrices
from export.pipeline import export
from export.quantize import codec
from export.quantize import plan as planning
from export.quantize.plan import FUSED, Recipe
from export.quantize.prepare import other_bytes
from tests import tiny
from tests.export.checkpoints.packing import Layer, write_folder
from tests.export.exports import opened
from tests.export.silent import Heard

SHORT = tiny.Config(context=40)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write_hf_folder(tmp_path / "tiny", SHORT)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "calibration.txt"
    file.write_text("and then hello in the hall, the other one: 1, 2, 3. " * 90)
    return file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    return tmp_path / "made" / "bundle"


def model_bytes(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in (contract.MODEL_FILE, contract.DATA_FILE))


def beside(source: Path) -> int:
    """Bytes that are kept for what is no matrix."""
    with opened(source) as (arch, _):
        return other_bytes(arch)


def check_sound(out: Path, manifest: Manifest) -> None:
    bundle = open_bundle(out)
    assert problems(bundle) == []
    assert bundle.manifest == manifest
    assert manifest.quality["verification_error"] < 1e-4
    assert not list(out.parent.glob(".*"))
    assert not [path for path in out.iterdir() if path.is_dir() or path.name.startswith(".")]


def test_gptq_makes_a_bundle_that_says_so(source: Path, out: Path, text: Path) -> None:
    manifest = export(ExportJob(source, out, method="gptq", calibration=text), Heard())
    check_sound(out, manifest)
    assert manifest.quant.method == "gptq+round"
    assert manifest.quant.weights["layers.0.qkv"] == "int4-b32-twin"
    assert manifest.quant.weights["embed"] == "int8-b64"


def test_the_model_s_own_text_is_enough(source: Path, out: Path) -> None:
    heard = Heard()
    check_sound(out, export(ExportJob(source, out, method="gptq"), heard))
    assert any("calibration text" in stage for stage in heard.stages)


@pytest.mark.parametrize("own", [True, False], ids=["own text", "a file"])
def test_the_same_wishes_give_the_same_bytes(own: bool, source: Path, tmp_path: Path, text: Path) -> None:
    calibration = None if own else text
    bundles = [tmp_path / "one", tmp_path / "two"]
    for folder in bundles:
        export(ExportJob(source, folder, method="gptq", calibration=calibration), Heard())
    one, two = ((folder / contract.DATA_FILE).read_bytes() for folder in bundles)
    assert one == two


@pytest.mark.parametrize("method", planning.ROUNDINGS)
@pytest.mark.parametrize("matrix_bytes", [80_000, 95_000])
def test_a_budget_holds_for_the_files_that_are_written(
    matrix_bytes: int, method: planning.Rounding, source: Path, out: Path, text: Path
) -> None:
    budget = beside(source) + matrix_bytes
    manifest = export(ExportJob(source, out, method=method, size_budget=budget, calibration=text), Heard())
    check_sound(out, manifest)
    assert model_bytes(out) <= budget
    assert model_bytes(out) > 0.97 * matrix_bytes
    assert len({spec for name, spec in manifest.quant.weights.items() if name.startswith("layers.")}) > 1
    assert ("gptq" in manifest.quant.method) == (method == "gptq")


def test_more_bytes_buy_quality(source: Path, tmp_path: Path, text: Path) -> None:
    losses = []
    for number, size in enumerate((75_000, 90_000, 200_000)):
        job = ExportJob(source, tmp_path / str(number), size_budget=beside(source) + size, calibration=text)
        losses.append(export(job, Heard()).quality["kl"])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.1 * losses[0]


REFUSED: dict[str, tuple[dict[str, Any], type[EdgekitError], str]] = {
    "a budget too small": ({"size_budget": 110_000}, BudgetTooSmall, "smallest weights"),
    "a budget of nothing": ({"size_budget": 0}, BudgetTooSmall, "alone take"),
    "quality too low": ({"max_kl": 1e-4}, QualityTooLow, "--max-kl allows 0.0001"),
    "no number": ({"max_kl": float("nan")}, QualityTooLow, "--max-kl allows nan"),
    "gptq of INT8": ({"method": "gptq", "precision": "int8"}, UsageError, "int4"),
    "text too short": ({"method": "gptq", "calibration": "short.txt"}, CalibrationTooShort, r"short\.txt"),
    "text missing": ({"method": "gptq", "calibration": "missing.txt"}, EdgekitError, r"missing\.txt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_one_error_and_leaves_nothing(name: str, source: Path, out: Path, text: Path) -> None:
    wishes, error, said = REFUSED[name]
    (text.parent / "short.txt").write_text("hello")
    calibration = text.parent / wishes.get("calibration", text.name)
    with pytest.raises(error, match=said):
        export(ExportJob(source, out, **wishes | {"calibration": calibration}), Heard())
    assert list(out.parent.iterdir()) == []


def test_a_loss_within_the_limit_passes(source: Path, out: Path) -> None:
    assert export(ExportJob(source, out, max_kl=5.0), Heard()).quality["kl"] <= 5.0


def boom(error: BaseException) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize("place", ["calibrate.gptq.quantise", "calibrate.Spool.put", "calibrate.Spool.take"])
@pytest.mark.parametrize(
    ("error", "seen"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "No space left on device"), DiskFull)],
    ids=["Ctrl-C", "disk full"],
)
def test_a_failure_while_calibrating_leaves_nothing(
    place: str,
    error: BaseException,
    seen: type[BaseException],
    source: Path,
    out: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"export.quantize.{place}", boom(error))
    with pytest.raises(seen):
        export(ExportJob(source, out, method="gptq", calibration=text), Heard())
    assert list(out.parent.iterdir()) == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_whose_values_overflow_are_one_error(tmp_path: Path, out: Path, text: Path) -> None:
    values = {name: each * np.float32(1e30 if "_proj" in name else 1) for name, each in tiny.weights(SHORT).items()}
    source = tiny.write_hf_folder(tmp_path / "huge", SHORT, values=values)
    with pytest.raises(EdgekitError):
        export(ExportJob(source, out, method="gptq", calibration=text), Heard())
    assert list(out.parent.iterdir()) == []


# --- blocks that are kept -------------------------------------------------------------------


def packed_model(layout: str, bits: int = 4) -> dict[str, NDArray[Any]]:
    packed: dict[str, NDArray[Any]] = {}
    for seed, (name, values) in enumerate(tiny.weights().items()):
        if "_proj" in name:
            layer = Layer(values.shape[1], values.shape[0], bits=bits, seed=seed)
            prefix = name.removesuffix(".weight")
            packed |= layer.awq(prefix) if layout == "awq" else layer.gptq(prefix)
        else:
            packed[name] = values
    return packed


GPTQ = {"quant_method": "gptq", "group_size": 32, "desc_act": False, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
PACKED = {
    "GPTQ": ("gptq", 4, {**GPTQ, "bits": 4}, "int4-b32-zp"),
    "AWQ": ("awq", 4, AWQ, "int4-b32-zp"),
    "GPTQ of 8 bits": ("gptq", 8, {**GPTQ, "bits": 8}, "int8-b32-zp"),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_values_are_in_the_bundle_exactly(name: str, tmp_path: Path, out: Path) -> None:
    layout, bits, settings, spec = PACKED[name]
    source = write_folder(tmp_path / "packed", packed_model(layout, bits), settings)
    manifest = export(ExportJob(source, out, "int4" if bits == 4 else "int8"), Heard())
    check_sound(out, manifest)
    assert manifest.quant.method == "keep+round"  # the embedding and the head are floats in the file
    assert {manifest.quant.weights[f"layers.1.{kind}"] for kind in ("qkv", "o", "gate_up", "down")} == {spec}
    with opened(source) as (arch, weights):
        matrices = BundleMatrices(out, planning.plan(arch, Recipe(manifest.quant.precision), weights))
        for at in ("layers.0", "layers.1"):
            for kind in ("qkv", "o", "gate_up", "down"):
                meant = np.concatenate([weights.tensor(f"{at}.{part}.weight") for part in FUSED.get(kind, (kind,))])
                found = matrices.multiply(f"{at}.{kind}", np.eye(meant.shape[1], dtype=np.float32)).T
                np.testing.assert_array_equal(found, meant)


def k_quants(path: Path) -> Path:
    """A llama in Q4_K: random codes, with offsets of 5 to 9 scales."""
    config = tiny.Config(hidden=256, intermediate=256, heads=4, kv_heads=2, head_dim=64, layers=1, context=40)
    plain = tiny.write_gguf(path.with_name("plain.gguf"), config, tensor_type="F16")
    reader, writer = gguf.GGUFReader(plain), gguf.GGUFWriter(path, "llama")
    random = np.random.default_rng(0)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(
                key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and tensor.tensor_type.name == "F16":
            kind = gguf.GGMLQuantizationType.Q4_K
            raw = random.integers(0, 256, (tensor.data.shape[0], tensor.data.shape[1] // 256 * 144), np.uint8)
            each = raw.reshape(-1, 144)
            scale = random.uniform(2e-4, 6e-4, (len(each), 1))
            each[:, :2] = scale.astype("<f2").view(np.uint8)
            each[:, 2:4] = (scale * random.uniform(5, 9, (len(each), 1))).astype("<f2").view(np.uint8)
            each[:, 4:16] = [160] * 8 + [0] * 4  # every 6-bit factor is 32
            writer.add_tensor(tensor.name, raw, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_q4_k_file_keeps_its_blocks(tmp_path: Path, out: Path) -> None:
    source = k_quants(tmp_path / "tiny.gguf")
    manifest = export(ExportJob(source, out), Heard())
    check_sound(out, manifest)
    assert manifest.quant.weights["layers.0.qkv"] == manifest.quant.weights["layers.0.down"] == "int4-b32-affine"
    with opened(source) as (arch, weights):
        planned = planning.plan(arch, Recipe("int4"), weights)["layers.0.gate_up"]
        meant = np.concatenate([weights.tensor(part) for part in planned.parts])
        blocks = [weights.blocks(part) for part in planned.parts]
        steps = np.concatenate([each.scales for each in blocks if each is not None])
        error = np.abs(codec.dequantise(planning.quantise(planned, weights)) - meant)
    assert (error <= np.repeat(np.abs(steps).max(axis=1, keepdims=True), 256, axis=1) / 15).all()


def test_a_rounded_q4_k_file_has_no_constants_left(tmp_path: Path, out: Path) -> None:
    manifest = export(ExportJob(k_quants(tmp_path / "tiny.gguf"), out, "int8"), Heard())
    check_sound(out, manifest)
    assert set(manifest.quant.weights.values()) == {"int8-b32", "int8-b64"}

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit import contract
from edgekit.errors import BundleError, CorruptBundle, UsageError
from edgekit.manifest import Manifest
from edgekit.onnxfile import external_tensors
from export.job import ExportJob
from export.pipeline import export
from export.quantize.plan import Rounding
from export.sweep import run
from tests import tiny
from tests.device_agent.bundles import edit, seal
from tests.export.silent import SILENT

Values = tiny.Weights


def nudged(values: Values, share: float = 0.003, seed: int = 1) -> Values:
    random = np.random.default_rng(seed)
    return {
        name: (each + random.normal(0, share * each.std(), each.shape) * (each.ndim == 2)).astype(np.float32)
        for name, each in values.items()
    }


def made(folder: Path, values: Values, base: Path | None = None, *, shape: tiny.Config = tiny.DEFAULT) -> Manifest:
    source = tiny.write_hf_folder(folder.with_name(f"{folder.name}-source"), shape, values=values)
    return export(ExportJob(source, folder, "int4", freeze_scales_from=base), SILENT)


def tensors(folder: Path) -> dict[str, bytes]:
    data = (folder / contract.DATA_FILE).read_bytes()
    graph = external_tensors((folder / contract.MODEL_FILE).read_bytes())
    return {each.name: data[each.offset : each.offset + (each.length or 0)] for each in graph}


def equal_share(one: bytes, two: bytes) -> float:
    return float(np.mean(np.frombuffer(one, np.uint8) == np.frombuffer(two, np.uint8)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base"
    made(folder, tiny.weights())
    return folder


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that kept the blocks of a Q4_1 file."""
    folder = tmp_path_factory.mktemp("affine")
    source = tiny.write_gguf(folder / "base.gguf", tensor_type="Q4_1")
    export(ExportJob(source, folder / "base", "int4"), SILENT)
    return folder / "base"


def test_scales_of_a_fine_tune_are_those_of_the_base(base: Path, tmp_path: Path) -> None:
    values = nudged(tiny.weights())
    frozen, anew = made(tmp_path / "frozen", values, base), made(tmp_path / "anew", values)
    assert (frozen.quant.method, anew.quant.method) == ("frozen", "round")
    assert frozen.quant.weights == anew.quant.weights
    old, new, other = tensors(base), tensors(tmp_path / "frozen"), tensors(tmp_path / "anew")
    scales = [name for name in old if name.endswith(".scales")]
    assert all(equal_share(old[name], new[name]) > 0.97 for name in scales)
    assert sum(equal_share(old[name], other[name]) for name in scales) < 0.9 * len(scales)
    codes = [name for name in old if name.endswith(".weight") and ".norm" not in name]
    assert sum(old[name] != new[name] for name in codes) > 5, "the new weights are in it"
    assert frozen.quality["kl"] <= anew.quality["kl"] * 1.1 + 0.01


def test_a_base_of_kept_blocks_gives_its_layout(affine: Path, tmp_path: Path) -> None:
    """The fine-tune is a float checkpoint, and its base came from a file of Q4_1 blocks."""
    frozen = made(tmp_path / "frozen", nudged(tiny.weights()), affine)
    assert frozen.quant.weights["layers.0.qkv"] == "int4-b32-affine"
    old, new = tensors(affine), tensors(tmp_path / "frozen")
    for name in (name for name in old if name.endswith((".scales", ".zero_points"))):
        assert equal_share(old[name], new[name]) > 0.9


def test_tokens_that_the_base_does_not_know_get_scales_of_their_own(base: Path, tmp_path: Path) -> None:
    values = nudged(tiny.weights())
    shape = replace(tiny.DEFAULT, vocab=tiny.DEFAULT.vocab + 8)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        more = np.random.default_rng(7).normal(0, values[name].std(), (8, shape.hidden)).astype(np.float32)
        values[name] = np.concatenate([values[name], more])
    made(tmp_path / "frozen", values, base, shape=shape)
    old, new = tensors(base), tensors(tmp_path / "frozen")
    for name in ("embed.scales", "lm_head.scales"):
        assert len(new[name]) > len(old[name])
        assert equal_share(old[name], new[name][: len(old[name])]) > 0.97


def test_matrices_that_the_base_stores_in_another_way_are_rounded(base: Path, tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "source", values=nudged(tiny.weights()))
    job = ExportJob(source, tmp_path / "out", "int4", block_size=16, freeze_scales_from=base)
    assert export(job, SILENT).quant.method == "frozen+round"  # the ends are INT8 in both


def test_a_base_of_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    wide = tiny.Config(hidden=128)
    with pytest.raises(UsageError, match="--freeze-scales-from"):
        made(tmp_path / "frozen", tiny.weights(wide), base, shape=wide)
    assert not (tmp_path / "frozen").exists()


@pytest.mark.parametrize(("method", "budget"), [("gptq", None), ("rtn", 10**6)], ids=["gptq", "budget"])
def test_what_would_undo_it_is_refused(base: Path, method: Rounding, budget: int | None, tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "source")
    job = ExportJob(source, tmp_path / "out", method=method, size_budget=budget, freeze_scales_from=base)
    with pytest.raises(UsageError, match="--freeze-scales-from"):
        export(job, SILENT)
    with pytest.raises(UsageError, match="--freeze-scales-from"):
        run(replace(job, method="rtn", size_budget=None), SILENT)


def test_a_base_that_is_none_or_lies_is_refused(base: Path, tmp_path: Path) -> None:

    with pytest.raises(BundleError):
        made(tmp_path / "out", tiny.weights(), tmp_path)
    lying = shutil.copytree(base, tmp_path / "lying")
    edit(lying, lambda manifest: manifest["quant"]["weights"].update({"layers.0.qkv": "int8-b32"}))
    seal(lying)
    source = tiny.write_hf_folder(tmp_path / "source")
    with pytest.raises(CorruptBundle, match=r"layers\.0\.qkv"):
        export(ExportJob(source, tmp_path / "out", "int8", freeze_scales_from=lying), SILENT)

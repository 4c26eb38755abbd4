"""A bundle that does not compute what the checkpoint says must not pass."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.errors import VerificationFailed
from edgekit.quant import Precision
from export import verify
from export.divergence import divergence
from export.families.weights import Weights
from export.graph import decoder
from export.graph.ops import WeightFile
from export.job import ExportJob
from export.pipeline import export
from export.prompts import GOLDEN_TEXTS
from export.quantize.plan import Plan, Recipe, plan, quantise
from tests import tiny
from tests.export.exports import Decoder, export_tiny, opened
from tests.export.silent import Heard

PROBE = [5, 77, 210, 3, 98, 150, 261, 12, 12, 44, 300, 4, 9]
PROMPTS = [[5, 6, 7], [150, 12]]
Tamper = Callable[[Path], None]


def build(folder: Path, arch: ModelArch, planned: Plan, weights: Weights) -> None:
    folder.mkdir()
    data = WeightFile(folder / contract.DATA_FILE)
    onnx.save(
        decoder.build(arch, planned, weights, lambda each: quantise(each, weights), data, lambda _: None),
        str(folder / contract.MODEL_FILE),
    )
    data.close()


def check(folder: Path, arch: ModelArch, planned: Plan, weights: Weights) -> verify.Report:
    step = Heard().stage
    return verify.against_reference(
        folder, arch, planned, weights, probe=PROBE, prompts=PROMPTS, eos=(tiny.IM_END,), step=step
    )


def overwrite(tensor: str, change: Callable[[bytes], bytes]) -> Tamper:
    """Change a tensor's bytes where they lie in the data file of a graph, as a damaged disk would."""

    def tamper(folder: Path) -> None:
        graph = onnx.load(str(folder / contract.MODEL_FILE), load_external_data=False).graph
        place = {e.key: e.value for t in graph.initializer if t.name == tensor for e in t.external_data}
        start, length = int(place["offset"]), int(place["length"])
        raw = (folder / contract.DATA_FILE).read_bytes()
        changed = change(raw[start : start + length])
        assert len(changed) == length
        (folder / contract.DATA_FILE).write_bytes(raw[:start] + changed + raw[start + length :])

    return tamper


def attribute(operator: str, name: str, value: float) -> Tamper:
    """Give all operators of a kind another value of an attribute."""

    def tamper(folder: Path) -> None:
        model = onnx.load(str(folder / contract.MODEL_FILE), load_external_data=False)
        nodes = [node for node in model.graph.node if node.op_type == operator]
        assert nodes
        for node in nodes:
            kept = [each for each in node.attribute if each.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
        onnx.save(model, str(folder / contract.MODEL_FILE))

    return tamper


def swap_inputs(operator: str, one: int, other: int) -> Tamper:
    def tamper(folder: Path) -> None:
        model = onnx.load(str(folder / contract.MODEL_FILE), load_external_data=False)
        node = next(node for node in model.graph.node if node.op_type == operator)
        node.input[one], node.input[other] = node.input[other], node.input[one]
        onnx.save(model, str(folder / contract.MODEL_FILE))

    return tamper


GRAPHS: dict[str, Tamper] = {
    "rotary tables of another place": overwrite("rotary.fine_cos", lambda raw: raw[64:] + raw[:64]),
    "norm epsilon": attribute("SkipSimplifiedLayerNormalization", "epsilon", 0.5),
    "activation": attribute("QuickGelu", "alpha", 1.702),
    "interleaved rotary": attribute("GroupQueryAttention", "rotary_interleaved", 1),
    "cosines and sines swapped": swap_inputs("GroupQueryAttention", 7, 8),
    "a window": attribute("GroupQueryAttention", "local_window_size", 3),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_wrong_graph_is_refused(name: str, precision: Precision, tmp_path: Path) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny")) as (arch, weights):
        planned = plan(arch, Recipe(precision), weights)
        build(tmp_path / "out", arch, planned, weights)
        assert check(tmp_path / "out", arch, planned, weights).error < 1e-4
        GRAPHS[name](tmp_path / "out")
        with pytest.raises(VerificationFailed, match="differ from the reference by"):
            check(tmp_path / "out", arch, planned, weights)


def test_a_wrong_rotary_base_is_refused(tmp_path: Path) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny")) as (arch, weights):
        planned = plan(arch, Recipe("fp32"), weights)
        assert arch.rotary is not None
        other = msgspec.structs.replace(arch, rotary=msgspec.structs.replace(arch.rotary, base=500.0))
        build(tmp_path / "out", other, planned, weights)
        with pytest.raises(VerificationFailed, match="differ from the reference by"):
            check(tmp_path / "out", arch, planned, weights)


def test_a_wrong_layout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """High nibbles first: the reader and the operator then mean other weights."""
    with opened(tiny.write_hf_folder(tmp_path / "tiny")) as (arch, weights):
        planned = plan(arch, Recipe("int4"), weights)
        build(tmp_path / "out", arch, planned, weights)
        monkeypatch.setattr(
            "edgekit.twin.codes.unpack",
            lambda packed, bits, count: (
                np.stack([packed >> 4, packed & 15], -1).reshape(*packed.shape[:-1], -1)[..., :count]
                if bits == 4
                else packed[..., :count]
            ),
        )
        with pytest.raises(VerificationFailed, match="differ from the reference by"):
            check(tmp_path / "out", arch, planned, weights)


def test_damaged_bytes_show_in_the_quality(tmp_path: Path) -> None:
    """Damage that graph and reference both read cannot be told from quantisation, except by what it costs."""
    with opened(tiny.write_hf_folder(tmp_path / "tiny")) as (arch, weights):
        planned = plan(arch, Recipe("fp32"), weights)
        build(tmp_path / "out", arch, planned, weights)
        assert check(tmp_path / "out", arch, planned, weights).kl < 1e-6
        overwrite("layers.0.down.weight", lambda raw: raw[:400] + raw[800:1200] + raw[800:])(tmp_path / "out")
        assert check(tmp_path / "out", arch, planned, weights).kl > 1e-3


@pytest.mark.parametrize("factor", [0.02, 1000.0], ids=["saturated", "coarse"])
@pytest.mark.parametrize("tensor", ["layers.0.k_scale", "layers.1.v_scale"])
def test_wrong_scales_of_a_cache_are_refused(tensor: str, factor: float, tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny")
    export(ExportJob(source, tmp_path / "out", "fp32", kv="int8"), Heard())
    with opened(source) as (arch, weights):
        planned = plan(arch, Recipe("fp32"), weights)
        assert check(tmp_path / "out", arch, planned, weights).kl < 0.01
        overwrite(tensor, lambda raw: (np.frombuffer(raw, np.float32) * np.float32(factor)).tobytes())(tmp_path / "out")
        with pytest.raises(VerificationFailed, match="cache"):
            check(tmp_path / "out", arch, planned, weights)


def test_activations_that_cost_too_much_are_refused() -> None:
    expected = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    verify._check_near(expected + np.float32(0.01), expected)
    with pytest.raises(VerificationFailed, match="rounded activations"):
        verify._check_near(expected[:, ::-1] * 3, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_is_refused(value: float) -> None:
    expected = np.ones((2, 5), np.float32)
    found = expected.copy()
    found[1, 3] = value
    with pytest.raises(VerificationFailed):
        verify._check_exact(found, expected)


def test_divergence_is_the_mean_over_positions() -> None:
    source = np.log(np.array([[0.5, 0.5, 1e-30], [0.9, 0.05, 0.05]], np.float32))
    found = np.log(np.array([[0.25, 0.75, 1e-30], [0.9, 0.05, 0.05]], np.float32)) + np.float32(7)
    kl, same = divergence(source, found)
    assert kl == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)) / 2, rel=1e-5)
    assert same == 0.5


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_golden_tokens_are_greedy_and_sure_ones_lead(precision: Precision, tmp_path: Path) -> None:
    manifest = export_tiny(
        tiny.write_hf_folder(tmp_path / "tiny", tiny.Config(context=4096)), tmp_path / "out", precision
    )
    decoder_of_test = Decoder(tmp_path / "out", manifest.arch)
    assert len(manifest.golden) == len(GOLDEN_TEXTS) + 1  # and a chat
    assert sum(golden.sure for golden in manifest.golden) > 0
    for golden in manifest.golden:
        decoder_of_test.reset()
        ids, certain = list(golden.prompt), True
        for number, token in enumerate(golden.tokens):
            last = decoder_of_test.step(ids)[-1]
            lead = last[token] - np.delete(last, token).max()
            certain = certain and bool(lead > verify.SURE_MARGIN * (last.max() - last.min()))
            assert (number < golden.sure) == certain
            assert lead > -0.2
            ids = [token]
        assert len(golden.tokens) == verify.GOLDEN_TOKENS or golden.tokens[-1] in manifest.tokens.eos
        assert not set(golden.tokens[:-1]) & set(manifest.tokens.eos)


@pytest.mark.parametrize(("lead", "sure"), [(1.0, 0), (1.4, 1)])
def test_a_token_is_sure_beyond_the_reach_of_rounding(lead: float, sure: int) -> None:
    """INT8 activations move a logit of SmolLM2, whose logits span 40, by up to 0.7."""
    growing = verify._Continuation([1], [])
    growing.add(np.array([40.0, 40.0 - lead, 0.0], np.float32))
    assert growing.tokens == [0]
    assert growing.sure == sure


def test_a_report_is_what_the_manifest_records() -> None:
    report = verify.Report(error=1e-6, kl=0.25, same_top_token=0.5, tokens=9, golden=())
    assert report.quality() == {"verification_error": 1e-6, "kl": 0.25, "same_top_token": 0.5, "tokens": 9}
    assert dataclasses.replace(report, kl=0.1234567).quality()["kl"] == 0.123457

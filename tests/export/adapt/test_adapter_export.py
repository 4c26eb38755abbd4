"""A PEFT folder becomes an adapter that computes, beside its base, what the merged model does; or a clear refusal."""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit import contract
from edgekit.adapter import check, fingerprint, open_adapter
from edgekit.bundle import open_bundle
from edgekit.errors import (
    AdapterMismatch,
    CorruptCheckpoint,
    EdgekitError,
    ExportError,
    OutputExists,
    UnsupportedCheckpoint,
    UsageError,
    VerificationFailed,
    WrongBase,
)
from edgekit.quant import Precision
from export.adapt import convert, proof
from export.adapt.job import AdapterJob, export_adapter
from export.adapter_cli import adapter_command
from export.checkpoints.adapter import Adapter
from export.job import ExportJob
from export.pipeline import export
from tests import loras, tiny
from tests.device_agent.bundles import CONCAT, ENCODER, TINY
from tests.export.exports import Decoder, error_of
from tests.export.silent import SILENT, Heard
from tests.loras import PREFIX, low_rank, tensors, write

IDS = [5, 77, 210, 3, 98, 150, 261, 12, 12, 44, 300]
QUERY, DOWN = "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_hf_folder(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="module")
def bases(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    kinds: tuple[Precision, ...] = ("fp32", "int8", "int4")
    for kind in kinds:
        export(ExportJob(source, folder / kind, kind), SILENT)
    return {kind: folder / kind for kind in kinds}


@pytest.fixture
def base(bases: Mapping[str, Path]) -> Path:
    return bases["fp32"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def beside(base: Path, adapter: Path, *, exact: bool = True) -> Floats:
    opened = open_adapter(adapter)
    check(opened, open_bundle(base))
    return proof.Beside(open_bundle(base), opened.weights, exact=exact).logits(IDS)


def merged(source: Path, peft: Path, folder: Path) -> Floats:
    """What the older way gives: the adapter merged into the checkpoint."""
    manifest = export(ExportJob(source, folder, "fp32", adapter=peft), SILENT)
    return Decoder(folder, manifest.arch).step(IDS)


CASES: dict[str, tuple[loras.Tensors, dict[str, object]]] = {
    "every linear": (tensors(), {}),
    "queries and values": (tensors(loras.ATTENTION), {}),
    "one matrix of one layer": (low_rank(DOWN, 64, 96), {}),
    "gates alone": (tensors(["mlp.gate_proj"]), {}),
    "rank-stabilised": (tensors(), {"use_rslora": True}),
    "alphas by pattern": (tensors(), {"alpha_pattern": {r"layers\.1\..*_proj": 3, "down_proj": 1}}),
    "ranks by pattern": (
        tensors(["self_attn.q_proj"]) | tensors(["self_attn.v_proj"], rank=7), {"rank_pattern": {"v_proj": 7}},
    ),
    "halves": ({name: values.astype(np.float16) for name, values in tensors().items()}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_base_and_adapter_compute_what_the_merged_model_does(
    name: str, source: Path, base: Path, tmp_path: Path, out: Path
) -> None:
    found, changed = CASES[name]
    peft = write(tmp_path / "peft", found, **changed)
    export_adapter(AdapterJob(peft, base, out, digits="float32"), SILENT)
    expected = merged(source, peft, tmp_path / "merged")
    assert error_of(beside(base, out), expected) < 1e-4
    without = Decoder(base, open_bundle(base).manifest.arch).step(IDS)
    assert error_of(without, expected) > 0.01, "the adapter changes something"


def test_numbers_keep_a_bfloat16_s_digits_unless_all_are_asked_for(base: Path, tmp_path: Path) -> None:
    peft = write(tmp_path / "peft", {name: values * np.float32(0.1) for name, values in tensors().items()})
    found = {}
    for digits in convert.DIGITS:
        export_adapter(AdapterJob(peft, base, tmp_path / digits, "any", digits=digits), SILENT)
        found[digits] = (tmp_path / digits / contract.ADAPTER_WEIGHTS_FILE).read_bytes()
    assert len(found["bfloat16"]) == len(found["float32"])
    assert len(zlib.compress(found["bfloat16"])) < 0.6 * len(zlib.compress(found["float32"]))
    near, exact = (beside(base, tmp_path / digits) for digits in convert.DIGITS)
    assert 0 < error_of(near, exact) < 1e-3


@given(bits=st.integers(0, 2**32 - 1))
def test_bfloat16_is_rounded_to_even(bits: int) -> None:
    values = np.array([bits], np.uint32).view(np.float32)
    if not abs(values[0]) < 3e38:  # what is no number was refused before
        return
    (found,) = convert.to_bfloat16(values)
    assert int(found.view(np.uint32)) & 0xFFFF == 0
    below = bits & 0xFFFF_0000
    low, high = np.array([below, below + 0x1_0000], np.uint32).view(np.float32).astype(np.float64)
    near, far = sorted((low, high), key=lambda each: abs(each - float(values[0])))
    if abs(near - float(values[0])) == abs(far - float(values[0])):
        assert int(found.view(np.uint32)) >> 16 & 1 == 0
    else:
        assert found == near


@pytest.mark.parametrize("kind", ["fp32", "int8", "int4"])
def test_what_was_made_beside_one_rounding_fits_the_others(
    kind: str, bases: Mapping[str, Path], tmp_path: Path, out: Path
) -> None:
    peft = write(tmp_path / "peft")
    manifest = export_adapter(AdapterJob(peft, bases[kind], out, name="any", version="7"), SILENT)
    assert (manifest.name, manifest.version, manifest.base.name) == ("any", "7", "tiny")
    assert manifest.quality["verification_error"] < 1e-4
    assert manifest.quality["moved_kl"] > 0.1
    assert len(manifest.golden) > 1
    assert {path.name for path in out.iterdir()} == {contract.ADAPTER_MANIFEST_FILE, contract.ADAPTER_WEIGHTS_FILE}
    expected = beside(bases["fp32"], out)
    for other, folder in bases.items():
        without = Decoder(folder, open_bundle(folder).manifest.arch).step(IDS)
        found = error_of(beside(folder, out), expected)
        assert found < (0.2 if other == "int8" else 1.0)
        assert found < error_of(without, expected)
    assert len({fingerprint(open_bundle(folder)) for folder in bases.values()}) == 1


def test_another_model_of_the_same_shape_is_not_its_base(base: Path, tmp_path: Path, out: Path) -> None:
    other = tiny.write_hf_folder(tmp_path / "other", seed=1)
    export(ExportJob(other, tmp_path / "other-base", "fp32"), SILENT)
    export_adapter(AdapterJob(write(tmp_path / "peft"), base, out), SILENT)
    with pytest.raises(WrongBase, match="made for tiny 1"):
        beside(tmp_path / "other-base", out)


def test_matrices_that_are_stored_apart_share_a_branch(tmp_path: Path, out: Path) -> None:
    """Q, K and V in different layouts, as a budget leaves them."""
    values = tiny.weights()
    gguf = tiny.write_gguf(tmp_path / "mixed.gguf", tensor_type="Q8_0", values=values)
    base = tmp_path / "base"
    manifest = export(ExportJob(gguf, base, "int4", size_budget=140_000), SILENT)
    apart = [name for name in manifest.quant.weights if name.endswith((".q", ".gate"))]
    assert apart, "the plan keeps some apart"
    export_adapter(AdapterJob(write(tmp_path / "peft"), base, out), SILENT)
    assert open_adapter(out).manifest.quality["verification_error"] < 1e-4


def test_biases_and_an_int8_cache(tmp_path: Path, out: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "source", tiny.Config(attention_bias=True, mlp_bias=True))
    base = tmp_path / "base"
    export(ExportJob(source, base, "int8", kv="int8"), SILENT)
    heard = Heard()
    small = {name: values * np.float32(0.2) for name, values in tensors().items()}
    manifest = export_adapter(AdapterJob(write(tmp_path / "peft", small), base, out), heard)
    assert manifest.quality["verification_error"] < 1e-4
    assert "recording golden tokens" in heard.stages


def test_without_an_adapter_the_graph_is_the_decoder(base: Path) -> None:
    plain, branched = (
        onnx.load(str(base / name), load_external_data=False).graph
        for name in (contract.MODEL_FILE, contract.ADAPTERS_FILE)
    )
    kept = {tensor.name: tensor for tensor in branched.initializer if ".lora_" not in tensor.name}
    assert kept == {tensor.name: tensor for tensor in plain.initializer}
    assert [value.name for value in branched.output] == [value.name for value in plain.output]
    assert len(branched.node) == len(plain.node) + 3 * 4 * 2


# --- refusals -------------------------------------------------------------------------------

Case = tuple[Callable[[], loras.Tensors], dict[str, object], type[EdgekitError], str]
MAGNITUDE = {f"{PREFIX}{DOWN}.lora_magnitude_vector": np.ones(64, np.float32)}
EMBEDDING = {
    f"{PREFIX}model.embed_tokens.lora_embedding_A": np.ones((4, 320), np.float32),
    f"{PREFIX}model.embed_tokens.lora_embedding_B": np.ones((64, 4), np.float32),
}


def infinite() -> loras.Tensors:
    found = low_rank(DOWN, 64, 96)
    found[f"{PREFIX}{DOWN}.lora_A.weight"][2, 3] = np.inf
    return found


REFUSED: dict[str, Case] = {
    "DoRA": (lambda: low_rank(DOWN, 64, 96) | MAGNITUDE, {"use_dora": True}, UnsupportedCheckpoint, "DoRA"),
    "an embedding": (lambda: EMBEDDING, {}, UnsupportedCheckpoint, "embedding model.embed_tokens"),
    "the head": (lambda: low_rank("lm_head", 320, 64), {}, AdapterMismatch, "'lm_head'"),
    "a norm trained whole": (
        lambda: tensors() | {f"{PREFIX}model.norm.weight": np.ones(64, np.float32)}, {}, UnsupportedCheckpoint, "whole",
    ),
    "a bias": (
        lambda: tensors() | {f"{PREFIX}{QUERY}.bias": np.ones(64, np.float32)}, {"bias": "all"},
        UnsupportedCheckpoint, "whole",
    ),
    "a layer that is not there": (
        lambda: low_rank("model.layers.9.mlp.down_proj", 64, 96), {}, AdapterMismatch, "layers.9",
    ),
    "a module that is not there": (lambda: low_rank(f"{QUERY}x", 64, 64), {}, AdapterMismatch, "q_projx"),
    "another width": (lambda: low_rank(DOWN, 64, 80), {}, AdapterMismatch, "shape"),
    "another height": (lambda: low_rank(DOWN, 32, 96), {}, AdapterMismatch, "shape"),
    "a rank that is not the configuration's": (lambda: low_rank(DOWN, 64, 96, rank=3), {}, CorruptCheckpoint, "rank 4"),
    "infinite values": (infinite, {}, CorruptCheckpoint, "NaN or infinite"),
    "an alpha that makes them infinite": (
        lambda: {n: v * np.float32(1e35) for n, v in low_rank(DOWN, 64, 96).items()}, {"lora_alpha": 1e9},
        CorruptCheckpoint, "no numbers",
    ),
    "another kind of adapter": (tensors, {"peft_type": "IA3"}, UnsupportedCheckpoint, "IA3"),
    "a start that changes the base": (tensors, {"init_lora_weights": "pissa"}, UnsupportedCheckpoint, "pissa"),
}  # fmt: skip


@pytest.mark.parametrize(("found", "changed", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_stand_beside_a_base_is_named(
    found: Callable[[], loras.Tensors],
    changed: dict[str, object],
    error: type[EdgekitError],
    words: str,
    base: Path,
    tmp_path: Path,
    out: Path,
) -> None:
    peft = write(tmp_path / "peft", found(), **changed)
    with pytest.raises(error, match=words):
        export_adapter(AdapterJob(peft, base, out), SILENT)
    assert not out.exists()


def test_bases_that_take_none(tmp_path: Path, out: Path) -> None:
    peft = write(tmp_path / "peft")
    for folder in (TINY, CONCAT):
        with pytest.raises(WrongBase, match="takes no adapters"):
            export_adapter(AdapterJob(peft, folder, out), SILENT)
    with pytest.raises(UsageError, match="embedding model"):
        export_adapter(AdapterJob(peft, ENCODER, out), SILENT)


def test_a_rotated_base_has_no_graph_for_them(source: Path, tmp_path: Path, out: Path) -> None:
    base = tmp_path / "rotated"
    export(ExportJob(source, base, "int4", method="gptq", rotate=True), SILENT)
    with pytest.raises(WrongBase, match="rotated"):
        export_adapter(AdapterJob(write(tmp_path / "peft"), base, out), SILENT)


def test_nothing_is_overwritten_and_names_are_plain(base: Path, tmp_path: Path, out: Path) -> None:
    peft = write(tmp_path / "my lora:1")
    assert export_adapter(AdapterJob(peft, base, out), SILENT).name == "my-lora-1"
    with pytest.raises(OutputExists):
        export_adapter(AdapterJob(peft, base, out), SILENT)
    for name, version in (("a:b", "1"), ("a", "a b")):
        with pytest.raises(UsageError):
            export_adapter(AdapterJob(peft, base, tmp_path / "other", name, version), SILENT)


def test_the_place_where_a_base_s_adapters_stand_is_made(base: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    made = store / contract.ADAPTERS_FOLDER / "support"
    assert export_adapter(AdapterJob(write(tmp_path / "peft"), base, made), SILENT).name == "peft"
    assert (made / contract.ADAPTER_MANIFEST_FILE).is_file()
    with pytest.raises(ExportError, match="does not exist"):
        export_adapter(AdapterJob(tmp_path / "peft", base, store / "nowhere" / "support"), SILENT)


def wrong_scale(changed: object, arch: object, linear: str) -> convert.Branch:
    found = BRANCH(changed, arch, linear)  # type: ignore[arg-type]  # as it came
    return convert.Branch(found.a, found.b * np.float32(1.05))


BRANCH = convert.branch


def test_a_wrong_branch_does_not_pass_the_proof(
    base: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "branch", wrong_scale)
    with pytest.raises(VerificationFailed, match="merged"):
        export_adapter(AdapterJob(write(tmp_path / "peft"), base, out), SILENT)
    assert not out.exists()


def test_ranks_beyond_all_measure_are_refused(
    base: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "MAX_RANK", 11)
    with pytest.raises(UnsupportedCheckpoint, match="12 together, and 11"):
        export_adapter(AdapterJob(write(tmp_path / "peft"), base, out), SILENT)


def test_the_command_says_what_it_made(base: Path, tmp_path: Path, out: Path) -> None:
    peft = write(tmp_path / "peft")
    given = ["export", str(peft), "--base", str(base), "-o", str(out), "--name", "support", "--version", "2", "--json"]
    result = CliRunner().invoke(adapter_command, given)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {key: found[key] for key in ("adapter", "name", "version", "base")} == {
        "adapter": str(out), "name": "support", "version": "2", "base": "tiny",
    }  # fmt: skip
    assert found["bytes"] == (out / contract.ADAPTER_WEIGHTS_FILE).stat().st_size
    assert found["ranks"]["layers.0.qkv"] == 12
    assert found["quality"]["moved_kl"] > 0
    told = CliRunner().invoke(adapter_command, [*given[:5], str(tmp_path / "second"), "--digits", "float32"])
    assert "8 linears" in told.stdout
    weights = [(folder / contract.ADAPTER_WEIGHTS_FILE).read_bytes() for folder in (out, tmp_path / "second")]
    assert weights[0] != weights[1], "the digits that were asked for"


def test_modules_share_what_the_model_has_once(tmp_path: Path) -> None:
    """GPT-2 has one module for Q, K and V: its A is stored once."""
    arch = open_bundle(TINY).manifest.arch
    shape = {"model_type": "gpt2", "kv_heads": arch.heads, "gated": False}
    gpt2 = type(arch)(**{name: getattr(arch, name) for name in arch.__struct_fields__} | shape)
    peft = write(tmp_path / "peft", low_rank("transformer.h.0.attn.c_attn", 192, 64), fan_in_fan_out=True)
    adapter = Adapter.open(peft)
    try:
        changes = convert.updates(adapter, gpt2, "float32")
        branch = convert.branch(changes["layers.0.qkv"], gpt2, "layers.0.qkv")
        (layer,) = adapter.layers.values()
        b, a = changes["layers.0.qkv"]["layers.0.q"], branch.a
        assert branch.a.shape == (64, layer.rank)
        np.testing.assert_allclose(a.T, b.a())
        assert branch.b.shape == (layer.rank, 192)
    finally:
        adapter.close()

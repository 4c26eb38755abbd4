"""Architectures without a family: optimum's graph, our weights, the device's decoder and embedder."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from device_agent import EmbeddingModel, Model
from device_agent.check import verify
from device_agent.engine.graphs.session import open_rows
from device_agent.engine.records import Generation
from edgekit import contract
from edgekit.bundle import open_bundle, problems
from edgekit.errors import (
    CorruptCheckpoint,
    EdgekitError,
    MissingExtra,
    MissingTensor,
    QualityTooLow,
    ShapeMismatch,
    UnexpectedTensor,
    UnknownFamily,
    UnsupportedCheckpoint,
    UsageError,
    VerificationFailed,
)
from edgekit.quant import Precision
from export.job import ExportJob
from export.optimum import rewrite, route
from export.optimum.original import Original
from export.pipeline import export
from export.quantize import codec
from tests import tiny
from tests.export.exports import error_of, export_tiny
from tests.export.optimum import tiny_models
from tests.export.silent import SILENT, Heard

pytestmark = pytest.mark.reference

DECODERS = [name for name in tiny_models.SIZES if name != "bert"]
PROMPT = [5, 77, 210, 3, 98, 150, 261, 12, 12, 44, 300, 8, 61, 205, 9, 17, 33]
MAX_KL: dict[Precision, float] = {"fp32": 1e-6, "int8": 0.02, "int4": 2.0}
"""Nats. Rounding hurts random weights far more than trained ones."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    return tmp_path / "made" / "bundle"


@pytest.mark.parametrize("model_type", DECODERS)
def test_float_logits_and_greedy_tokens_are_those_of_the_original(model_type: str, tmp_path: Path, out: Path) -> None:
    export_tiny(tiny_models.write_decoder(tmp_path / "tiny", model_type), out, "fp32")
    original = tiny_models.original(model_type)
    rows = open_rows(open_bundle(out), threads=1)
    expected = tiny_models.logits(original, PROMPT)
    assert error_of(rows.read(0, PROMPT[:9]), expected[8]) <= 1e-4
    assert error_of(rows.read(0, PROMPT[9:15]), expected[14]) <= 1e-4  # several tokens after a cache
    for at in (15, 16):
        assert error_of(rows.decode({0: PROMPT[at]}), expected[at]) <= 1e-4
    with Model.open(out, threads=1) as model:
        pieces = model.submit(Generation(prompt=tuple(PROMPT), max_tokens=12))
        found = [token for piece in pieces for token in piece.tokens]
    tokens = tiny_models.greedy(original, PROMPT, 12)
    ended = tokens.index(tiny.IM_END) + 1 if tiny.IM_END in tokens else None
    assert found == tokens[:ended]


@pytest.mark.parametrize(("model_type", "precision"), [*((name, "int4") for name in DECODERS), ("opt", "int8")])
def test_a_quantised_decoder_is_proved_and_verifies_on_the_device(
    model_type: str, precision: Precision, tmp_path: Path, out: Path
) -> None:
    heard = Heard()
    source = tiny_models.write_decoder(tmp_path / "tiny", model_type)
    manifest = export(ExportJob(source, out, precision), heard)
    assert f"no fused graph for {model_type}: using optimum's exporter" in heard.stages
    assert heard.advances[-1][0] == heard.advances[-1][1]
    assert (manifest.kv, manifest.task, manifest.arch.block) == ("concat", "generate", "opaque")
    assert manifest.quality["verification_error"] < 1e-4
    assert manifest.quality["kl"] < MAX_KL[precision]
    assert sum(golden.sure for golden in manifest.golden) >= 1
    wanted = {"int8": {"int8-b32", "int8-b64"}, "int4": {"int4-b32", "int8-b64"}}[precision]
    assert set(manifest.quant.weights.values()) == wanted
    assert problems(open_bundle(out)) == []
    assert verify(out, SILENT.stage) == []


def test_a_bundle_holds_the_files_of_any_other(tmp_path: Path, out: Path) -> None:
    manifest = export_tiny(tiny_models.write_decoder(tmp_path / "tiny", "opt"), out, "int8")
    assert {path.name for path in out.iterdir()} == {
        contract.MODEL_FILE,
        contract.DATA_FILE,
        contract.MANIFEST_FILE,
        contract.TOKENIZER_FILE,
        contract.TOKENIZER_CONFIG_FILE,
        contract.CHAT_TEMPLATE_FILE,
        contract.CARD_FILE,
    }
    assert json.loads((out / contract.MANIFEST_FILE).read_bytes())["kv"] == "concat"
    assert (manifest.arch.layers, manifest.arch.kv_heads, manifest.arch.head_dim) == (2, 4, 16)
    assert (manifest.arch.vocab, manifest.arch.context) == (tiny_models.VOCAB, tiny_models.CONTEXT)


def test_a_tied_head_is_stored_once(tmp_path: Path, out: Path) -> None:
    tied = export_tiny(tiny_models.write_decoder(tmp_path / "tied", "opt"), out, "int8")
    other = tiny_models.write_decoder(tmp_path / "untied", "opt", tie_word_embeddings=False)
    untied = export_tiny(other, tmp_path / "untied-bundle", "int8")
    table = tiny_models.VOCAB * (64 + 4)  # INT8 codes, and a float scale for each block of 64
    assert abs(untied.requires.weight_bytes - tied.requires.weight_bytes - table) < 128  # alignment


def write(kind: str, folder: Path) -> Path:
    return tiny_models.write_encoder(folder) if kind == "encoder" else tiny_models.write_decoder(folder, "opt")


# --- encoders -------------------------------------------------------------------------------

TEXTS = ["hello the end", "and", "a longer text in and on the hello, with 12 numbers", "hello", ""]


@pytest.mark.parametrize(
    ("pooling", "normalise"), [("mean_tokens", True), ("cls_token", False), ("lasttoken", True), ("mean_tokens", False)]
)
def test_float_vectors_are_those_of_the_original(pooling: str, normalise: bool, tmp_path: Path, out: Path) -> None:
    export_tiny(tiny_models.write_encoder(tmp_path / "tiny", pooling=pooling, normalise=normalise), out, "fp32")
    model = EmbeddingModel.open(out, threads=1)
    original = tiny_models.original("bert")
    found = model.embed(TEXTS)
    assert found.dtype == np.float32
    for text, vector in zip(TEXTS, found, strict=True):
        ids = list(model.tokens(text))
        assert (ids[0], ids[-1]) == (tiny.IM_START, tiny.IM_END)
        expected = tiny_models.sentence_vector(original, ids, pooling, normalise=normalise)
        assert error_of(vector, expected) <= 1e-4


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_encoder_is_proved_and_verifies_on_the_device(
    precision: Precision, tmp_path: Path, out: Path
) -> None:
    manifest = export_tiny(tiny_models.write_encoder(tmp_path / "tiny"), out, precision)
    assert manifest.task == "embed"
    assert manifest.embedding is not None
    assert (manifest.embedding.pooling, manifest.embedding.normalise) == ("mean", True)
    assert (manifest.embedding.max_tokens, manifest.embedding.dimension) == (64, 64)
    assert manifest.quality["verification_error"] < 1e-4
    assert manifest.quality["cosine"] > {"int8": 0.999, "int4": 0.95}[precision]
    assert manifest.requires.kv_bytes_per_token == 0
    assert len(manifest.embedding.golden) == 3
    assert verify(out, SILENT.stage) == []


def test_a_known_family_with_modules_is_an_encoder_too(tmp_path: Path, out: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny")
    tiny_models.write_modules(source, pooling="lasttoken", normalise=True, max_tokens=32)
    manifest = export_tiny(source, out, "int8")
    assert (manifest.task, manifest.arch.model_type) == ("embed", "llama")
    assert EmbeddingModel.open(out, threads=1).embed(["hello"]).shape == (1, 64)


# --- bad input ------------------------------------------------------------------------------


class Bad(NamedTuple):
    """A change of a folder, and the error that it must give."""

    change: Callable[[Path], None]
    error: type[EdgekitError]
    words: str


def with_tensor(name: str, value: NDArray[np.floating[Any]] | None) -> Callable[[Path], None]:
    """Replace, add or (None) remove a tensor."""

    def change(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        found.pop(name, None)
        if value is not None:
            found[name] = value.astype(np.float32)
        tiny.write_safetensors(folder / "model.safetensors", found)

    return change


def with_config(**changed: object) -> Callable[[Path], None]:
    return lambda folder: tiny_models.change_config(folder, **changed)


def without_end(folder: Path) -> None:
    tiny_models.change_config(folder, eos_token_id=None)
    (folder / "generation_config.json").unlink()
    tiny.write_json(folder / "tokenizer_config.json", {})


NORM = "model.decoder.layers.0.final_layer_norm.weight"
FIRST = "model.decoder.layers.0.fc1.weight"
BAD = {
    "a missing tensor": Bad(with_tensor(NORM, None), MissingTensor, NORM),
    "an extra tensor": Bad(with_tensor("surprise", np.ones(1)), UnexpectedTensor, "surprise"),
    "a tensor of another shape": Bad(with_tensor(NORM, np.ones(3)), ShapeMismatch, NORM),
    "a value that is not a number": Bad(with_tensor(FIRST, np.full((128, 64), np.nan)), CorruptCheckpoint, "fc1"),
    "an architecture that nobody knows": Bad(with_config(model_type="my_own"), UnknownFamily, "my_own"),
    "an architecture for images": Bad(with_config(model_type="vit"), UnsupportedCheckpoint, "vit writes no text"),
    "an architecture that optimum does not know": Bad(with_config(model_type="xglm"), UnknownFamily, "xglm"),
    "an encoder without modules": Bad(with_config(model_type="bert"), UnsupportedCheckpoint, "modules.json"),
    "code of the publisher's own": Bad(
        with_config(model_type="my_own", auto_map={"AutoModelForCausalLM": "modeling.Mine"}), UnknownFamily, "my_own"
    ),
    "a configuration of nonsense": Bad(
        with_config(num_attention_heads="four"), UnsupportedCheckpoint, "transformers cannot read it as opt"
    ),
    "absurdly many layers": Bad(with_config(num_hidden_layers=10**9), UnsupportedCheckpoint, "num_hidden_layers"),
    "an absurd width": Bad(with_config(ffn_dim=1 << 40), UnsupportedCheckpoint, "ffn_dim"),
    "an absurd context": Bad(with_config(max_position_embeddings=1 << 40), UnsupportedCheckpoint, "max_position"),
    "no end-of-text token": Bad(without_end, UnsupportedCheckpoint, "end-of-text"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error_and_leaves_nothing(name: str, tmp_path: Path, out: Path) -> None:
    source = tiny_models.write_decoder(tmp_path / "tiny", "opt")
    BAD[name].change(source)
    with pytest.raises(BAD[name].error) as refused:
        export_tiny(source, out, "int8")
    assert BAD[name].words in str(refused.value)
    assert list(out.parent.iterdir()) == []


def test_a_bundle_that_lost_too_much_is_not_written(tmp_path: Path, out: Path) -> None:
    source = tiny_models.write_decoder(tmp_path / "tiny", "opt")
    with pytest.raises(QualityTooLow, match="--max-kl allows 1e-06"):
        export(ExportJob(source, out, "int4", max_kl=1e-6), SILENT)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("decoder", {"method": "gptq"}),
        ("decoder", {"size_budget": 1 << 20}),
        ("decoder", {"rotate": True}),
        ("decoder", {"kv": "int8"}),
        ("encoder", {"method": "gptq"}),
        ("encoder", {"max_kl": 0.1}),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    kind: str, options: dict[str, Any], tmp_path: Path, out: Path
) -> None:
    with pytest.raises(UsageError, match="|".join(f"--{name.replace('_', '-')}" for name in options)):
        export(ExportJob(write(kind, tmp_path / "tiny"), out, "int4", **options), SILENT)


def test_the_block_size_is_that_of_the_job(tmp_path: Path, out: Path) -> None:
    source = tiny_models.write_decoder(tmp_path / "tiny", "opt")
    manifest = export(ExportJob(source, out, "int4", block_size=64), SILENT)
    assert set(manifest.quant.weights.values()) == {"int4-b64", "int8-b64"}


def test_a_missing_extra_is_named(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_models.write_decoder(tmp_path / "tiny", "opt")
    monkeypatch.setitem(sys.modules, "optimum", None)
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with pytest.raises(MissingExtra, match=r"edgekit\[reference\]"):
        export_tiny(source, out)
    assert list(out.parent.iterdir()) == []


def rolled(matrix: codec.QuantisedMatrix) -> codec.QuantisedMatrix:
    return dataclasses.replace(matrix, packed=np.roll(matrix.packed, 1, axis=0))


def without_scales(matrix: codec.QuantisedMatrix) -> codec.QuantisedMatrix:
    return dataclasses.replace(matrix, scales=matrix.scales * np.float32(np.nan))


@pytest.mark.parametrize("damage", [rolled, without_scales])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_bytes_that_mean_something_else_never_become_a_bundle(
    damage: Callable[[codec.QuantisedMatrix], codec.QuantisedMatrix],
    kind: str,
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = rewrite.quantised
    monkeypatch.setattr(rewrite, "quantised", lambda values, spec: damage(whole(values, spec)))
    with pytest.raises(VerificationFailed, match="is not the original's"):
        export_tiny(write(kind, tmp_path / "tiny"), out, "int8")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_graph_that_reads_the_wrong_matrix_never_becomes_a_bundle(
    kind: str, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(*arguments: Any) -> onnx.ModelProto:
        model = rewrite.rewrite(*arguments)
        one, other = [node for node in model.graph.node if node.op_type == "MatMulNBits"][:2]  # queries and keys
        for at in (1, 2):
            one.input[at], other.input[at] = other.input[at], one.input[at]
        return model

    monkeypatch.setattr(route, "rewrite", swapped)
    with pytest.raises(VerificationFailed, match="the finished graph differs"):
        export_tiny(write(kind, tmp_path / "tiny"), out, "int8")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_an_exporter_that_is_wrong_is_found_out(
    kind: str, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if optimum had written the graph of another model."""
    other = tiny_models.original("bert" if kind == "encoder" else "opt", seed=1)

    class Wrong(Original):
        def write_graph(self, path: Path) -> None:
            self._model.load_state_dict(other.state_dict())
            super().write_graph(path)
            self._model.load_state_dict(tiny_models.original("bert" if kind == "encoder" else "opt").state_dict())

    monkeypatch.setattr(route, "Original", Wrong)
    with pytest.raises(VerificationFailed, match="optimum's graph differs from the original"):
        export_tiny(write(kind, tmp_path / "tiny"), out, "fp32")
    assert list(out.parent.iterdir()) == []


def test_every_verb_of_the_other_kind_says_what_to_use(tmp_path: Path, out: Path) -> None:
    export_tiny(tiny_models.write_decoder(tmp_path / "d", "opt"), out, "int8")
    export_tiny(tiny_models.write_encoder(tmp_path / "e"), tmp_path / "encoder", "int8")
    with pytest.raises(UsageError, match="edgekit generate"):
        EmbeddingModel.open(out)
    with pytest.raises(UsageError, match="edgekit embed"):
        Model.open(tmp_path / "encoder")

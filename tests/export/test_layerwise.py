"""Layer by layer on onnxruntime, against the numpy reference: architectures with every quirk that families have."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.arch import ModelArch
from export import reference
from export.graph import decoder
from export.layerwise import Ends, Layerwise
from export.quantize import plan as planning
from export.quantize.plan import Recipe
from tests import tiny
from tests.export.exports import Decoder, error_of
from tests.export.families.cases import (
    cohere2,
    falcon,
    gemma2,
    gemma3_text,
    gpt2,
    jais,
    nemotron,
    olmo2,
    phi,
    phi3,
    qwen3,
    smollm3,
    stablelm,
)
from tests.export.random_weights import RandomWeights, arch_from, as_weights
from tests.export.recording import Recording, logits_of

Floats = NDArray[np.float32]

MODULES = {
    "cohere2: parallel, local and everywhere": cohere2,
    "falcon: ALiBi, one key head": falcon,
    "gemma2: sandwich norms, caps, windows": gemma2,
    "gemma3: norms of heads, two bases": gemma3_text,
    "gpt2: learned positions": gpt2,
    "jais: ALiBi, scales": jais,
    "nemotron: partial rotary": nemotron,
    "olmo2: norms after": olmo2,
    "phi: parallel, biases": phi,
    "phi3: longrope": phi3,
    "qwen3: norms of heads": qwen3,
    "smollm3: layers without positions": smollm3,
    "stablelm: both blocks": stablelm,
}
CASES = {f"{kind}; {name}": case for kind, module in MODULES.items() for name, case in module.CASES.items()}
CASES["llama: plain"] = tiny.hf_config()
SHORT, LONG = ([int(token) for token in np.random.default_rng(n).integers(3, 300, n)] for n in (5, 40))

every_case = pytest.mark.parametrize("name", CASES)
one_of_each = pytest.mark.parametrize("name", [f"{kind}; {next(iter(m.CASES))}" for kind, m in MODULES.items()])


def model(name: str) -> tuple[ModelArch, RandomWeights]:
    arch = arch_from(CASES[name])
    return arch, RandomWeights(arch)


@every_case
def test_logits_are_the_reference_s(name: str) -> None:
    arch, weights = model(name)
    windows = [LONG, SHORT, LONG[::-1]]
    found = list(Layerwise(arch, as_weights(weights)).windows(windows))
    assert [len(logits) for logits in found] == [40, 5, 40]
    for logits, ids in zip(found, windows, strict=True):
        assert error_of(logits, logits_of(arch, weights, ids)) < 1e-5


@one_of_each
def test_inputs_of_matrices_are_what_the_reference_multiplies(name: str) -> None:
    arch, weights = model(name)
    recording = Recording(arch, weights)
    ids = np.asarray([LONG, LONG[::-1]])
    layerwise = Layerwise(arch, as_weights(weights))
    stream = layerwise.embed(ids)
    for i in range(arch.layers):
        layer = layerwise.load(i)
        left, inputs = layerwise.run_with_inputs(i, layer, stream)
        np.testing.assert_array_equal(left, layerwise.run(i, layer, stream))
        assert set(inputs) == set(layer.matrices)
        for row in range(len(ids)):
            reference.layer(arch, recording, i, stream[row])
            for kind, values in inputs.items():
                assert error_of(values[row], recording.seen[f"layers.{i}.{kind}"]) < 1e-5, (i, kind)
        stream = left


@one_of_each
def test_a_replaced_matrix_is_as_another_checkpoint(name: str) -> None:
    arch, weights = model(name)
    layerwise, last = Layerwise(arch, as_weights(weights)), arch.layers - 1
    ids = np.asarray([LONG])
    stream = layerwise.embed(ids)
    for i in range(last):
        stream = layerwise.run(i, layerwise.load(i), stream)
    layer = layerwise.load(last)
    down = np.random.default_rng(9).normal(0, 0.2, layer.matrices["down"].shape).astype(np.float32)
    stream = layerwise.run(last, layer.with_matrix("down", down), stream)
    weights.values[f"layers.{last}.down.weight"] = down
    assert error_of(layerwise.logits(stream[0]), logits_of(arch, weights, LONG)) < 1e-5


@one_of_each
@pytest.mark.parametrize("end", ["embed", "lm_head"])
def test_replaced_ends_are_as_another_checkpoint(name: str, end: str) -> None:
    arch, weights = model(name)
    if end == "lm_head" and arch.tied:
        end = "embed"
    values = np.random.default_rng(9).normal(0, 0.5, (arch.vocab, arch.hidden)).astype(np.float32)
    (found,) = Layerwise(arch, as_weights(weights), Ends(end, values)).windows([LONG])
    weights.values[f"{end}.weight"] = values
    assert error_of(found, logits_of(arch, weights, LONG)) < 1e-5


@one_of_each
def test_keys_and_values_are_what_the_whole_graph_caches(name: str, tmp_path: Path) -> None:
    arch, weights = model(name)
    plan = planning.plan(arch, Recipe("fp32"), as_weights(weights))
    decoder.save(
        tmp_path, arch, plan, as_weights(weights), lambda each: planning.quantise(each, as_weights(weights)), print
    )
    whole = Decoder(tmp_path, arch)
    whole.step(LONG)
    layerwise = Layerwise(arch, as_weights(weights))
    stream = layerwise.embed(np.asarray([LONG, LONG]))
    for i in range(arch.layers):
        layer = layerwise.load(i)
        left, *cached = layerwise.run_with_cache(i, layer, stream)
        np.testing.assert_array_equal(left, layerwise.run(i, layer, stream))
        for values, expected in zip(cached, whole.cache[2 * i : 2 * i + 2], strict=True):
            assert values.shape == (2, arch.kv_heads, len(LONG), arch.head_dim)
            assert error_of(values[1:], expected.astype(np.float32)) < 1e-5
        stream = left


def test_one_graph_serves_all_layers_of_a_kind() -> None:
    arch = arch_from(next(iter(gemma2.CASES.values())))
    layerwise = Layerwise(arch, as_weights(RandomWeights(arch)))
    list(layerwise.windows([LONG]))
    assert arch.layers == 3
    assert len(layerwise._sessions) == 2


def test_rows_do_not_see_each_other() -> None:
    arch, weights = model("llama: plain")
    layerwise = Layerwise(arch, as_weights(weights))
    layer, both = layerwise.load(0), layerwise.embed(np.asarray([LONG, LONG[::-1]]))
    together = layerwise.run(0, layer, both)
    for row in range(2):
        np.testing.assert_allclose(layerwise.run(0, layer, both[row : row + 1])[0], together[row], atol=1e-5)

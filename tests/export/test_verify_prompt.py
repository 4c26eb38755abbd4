"""A twin that computes something else never ships; one that costs too much is left out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.errors import VerificationFailed
from export import verify, verify_prompt
from export.graph import decoder, prefill
from export.quantize.plan import Plan, Recipe, plan, quantise
from tests import tiny
from tests.export.random_weights import RandomWeights, arch_from, as_weights
from tests.export.silent import Heard

PROBE: list[int] = np.random.default_rng(3).integers(3, 300, 40).tolist()
Change = Callable[[onnx.GraphProto], None]


class Made:
    """A decoder with its twin, ready to be verified."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "out"
        self.folder.mkdir()
        self.arch = arch_from(tiny.hf_config(tiny.Config(layers=3)))
        self.weights = as_weights(RandomWeights(self.arch))
        self.plan = plan(self.arch, Recipe("int4"), self.weights)
        decoder.save(
            self.folder, self.arch, self.plan, self.weights, lambda each: quantise(each, self.weights), lambda _: None
        )
        prefill.save(self.folder, self.twin, self.arch, self.plan)
        self.report = self.verified()

    @property
    def twin(self) -> Path:
        return self.folder / contract.PREFILL_FILE

    def change(self, change: Change) -> None:
        model = onnx.load(str(self.twin), load_external_data=False)
        change(model.graph)
        onnx.save(model, str(self.twin))

    def verified(self) -> verify.Report:
        heard = Heard()
        return verify.against_reference(
            self.folder, self.arch, self.plan, self.weights, probe=PROBE, prompts=[[5, 6]], eos=(1,), step=heard.stage
        )


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def attribute(operator: str, name: str, value: float) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        nodes = [node for node in graph.node if node.op_type == operator]
        assert nodes
        for node in nodes:
            kept = [each for each in node.attribute if each.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])

    return change


def swap_inputs(operator: str, one: int, other: int) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        for node in (node for node in graph.node if node.op_type == operator):
            node.input[one], node.input[other] = node.input[other], node.input[one]

    return change


def swap_halves(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type == "Split":
            node.output[0], node.output[1] = node.output[1], node.output[0]


def without_row_scales(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type == "Mul" and node.output[0].endswith(".out"):
            node.input[1] = "const_float32__1.0"


WRONG: dict[str, Change] = {
    "no norm to speak of": attribute("SkipSimplifiedLayerNormalization", "epsilon", 1e4),
    "gates and what they gate swapped": swap_halves,
    "interleaved rotary": attribute("GroupQueryAttention", "rotary_interleaved", 1),
    "cosines and sines swapped": swap_inputs("GroupQueryAttention", 7, 8),
    "a window": attribute("GroupQueryAttention", "local_window_size", 2),
    "activations without their scale": without_row_scales,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_graph_is_refused(wrong: str, made: Made) -> None:
    assert made.report.prompt_kl is not None
    assert 0 < made.report.prompt_kl <= verify_prompt.MAX_PROMPT_KL
    made.change(WRONG[wrong])
    with pytest.raises(VerificationFailed, match="the graph that reads prompts"):
        made.verified()


def test_a_twin_that_costs_too_much_is_left_out(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_prompt, "MAX_PROMPT_KL", 1e-9)
    assert made.verified().prompt_kl is None
    assert not made.twin.exists()


def test_of_a_large_model_only_the_first_layers_are_derived(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_prompt, "LARGEST_BYTES", 1)
    drawn: list[int] = []
    save = prefill.save

    def spy(folder: Path, target: Path, arch: ModelArch, planned: Plan) -> None:
        drawn.append(arch.layers)
        save(folder, target, arch, planned)

    monkeypatch.setattr(prefill, "save", spy)
    assert made.verified().prompt_kl is None
    assert drawn == [2]
    assert made.twin.exists()


def test_a_bundle_without_a_twin_is_verified_as_well(made: Made) -> None:
    made.twin.unlink()
    assert made.verified().prompt_kl is None
    assert "prompt_kl" not in made.verified().quality()


def test_nothing_is_left_behind(made: Made) -> None:
    assert {path.name for path in made.folder.iterdir()} == {"model.onnx", "model.onnx.data", "prefill.onnx"}

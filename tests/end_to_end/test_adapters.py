"""A random LoRA beside the demo model changes the answers of those who ask for it, and of nobody else."""

from pathlib import Path

import numpy as np
import pytest

from device_agent import Model
from device_agent.engine.records import EngineSettings, Generation
from edgekit.adapter import fingerprint
from edgekit.bundle import open_bundle
from edgekit.quant import Precision
from export.adapt.job import AdapterJob, export_adapter
from tests import loras
from tests.end_to_end.conftest import Bundles
from tests.export.silent import SILENT

pytestmark = pytest.mark.demo

WIDTHS = {"self_attn.q_proj": (576, 576), "self_attn.v_proj": (192, 576)}
LAYERS = 30
PROMPT = "The lighthouse keeper wrote down the weather every morning. One day he"
NAMES = (None, "one", "two")


def peft_folder(folder: Path, seed: int) -> Path:
    """Rank 8 on queries and values, as many adapters are."""
    tensors: loras.Tensors = {}
    for layer in range(LAYERS):
        for target, sizes in WIDTHS.items():
            tensors |= loras.low_rank(f"model.layers.{layer}.{target}", *sizes, rank=8, seed=seed)
    small = {name: values / np.float32(6) for name, values in tensors.items()}
    return loras.write(folder, small, r=8, lora_alpha=16)


@pytest.fixture(scope="module")
def adapters(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Made beside INT4, used beside any."""
    folder, made = tmp_path_factory.mktemp("adapters"), []
    for seed, name in enumerate(("one", "two")):
        peft = peft_folder(folder / f"peft-{name}", seed)
        manifest = export_adapter(AdapterJob(peft, bundles("int4").folder, folder / name, name=name), SILENT)
        assert 2_500_000 < manifest.file_bytes < 3_500_000
        assert manifest.quality["moved_kl"] > 0.01
        made.append(folder / name)
    return made


def answer(model: Model, adapter: str | None) -> list[int]:
    generation = Generation(prompt=model.text_prompt(PROMPT), max_tokens=24, adapter=adapter)
    return [token for piece in model.submit(generation) for token in piece.tokens]


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_each_request_gets_its_own_model(precision: Precision, bundles: Bundles, adapters: list[Path]) -> None:
    base = bundles(precision).folder
    assert fingerprint(open_bundle(base)) == fingerprint(open_bundle(bundles("int4").folder))
    steady = EngineSettings(guess=False, prefix_bytes=0, slots=3)  # one way to compute a text
    with Model.open(base, engine=steady) as model:
        plain = answer(model, None)
        for folder in adapters:
            model.add_adapter(folder)
        found = {name: answer(model, name) for name in NAMES}
        assert found[None] == plain
        assert len({tuple(ids) for ids in found.values()}) == 3
        running = {
            name: model.submit(Generation(prompt=model.text_prompt(PROMPT), max_tokens=24, adapter=name))
            for name in NAMES
        }
        together = {name: [token for piece in each for token in piece.tokens] for name, each in running.items()}
        if precision == "fp32":  # 4-bit kernels round a prompt otherwise where it is read in other pieces
            assert together == found
        assert all(len(ids) == 24 for ids in together.values())
        model.remove_adapter("one")
        model.remove_adapter("two")
        assert answer(model, None) == plain

"""PEFT adapts a tiny model of every family; base and adapter compute what PEFT's model does."""

import importlib
from pathlib import Path

import pytest

from edgekit.bundle import open_bundle
from export.adapt import proof
from export.adapt.job import AdapterJob, export_adapter
from export.families import FAMILIES
from export.job import ExportJob
from export.pipeline import export
from tests.export.exports import error_of
from tests.export.silent import SILENT

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

IDS = [5, 77, 210, 3, 98, 150, 261, 12, 12, 44, 300]
IN_TRANSFORMERS = sorted(set(FAMILIES) - {"jais"})


@pytest.mark.parametrize("family", IN_TRANSFORMERS)
def test_every_linear_of_every_family(family: str, tmp_path: Path) -> None:
    import peft
    import torch

    from tests.export.families.originals import Original

    settings = next(iter(importlib.import_module(f"tests.export.families.cases.{family}").CASES.values()))
    original = Original(settings, tmp_path / "source")
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules="all-linear",
        exclude_modules=r".*(vision_tower|multi_modal_projector).*",
        task_type="CAUSAL_LM",
    )
    adapted = peft.get_peft_model(original._model, config).eval()
    with torch.no_grad():
        for values in adapted.parameters():
            if values.requires_grad:
                values.copy_(torch.randn_like(values) * 0.1)
    adapted.save_pretrained(str(tmp_path / "peft"))
    with torch.inference_mode():
        expected = adapted(torch.tensor([IDS]), use_cache=False).logits[0].numpy()
    export(ExportJob(tmp_path / "source", tmp_path / "base", "fp32"), SILENT)
    job = AdapterJob(tmp_path / "peft", tmp_path / "base", tmp_path / "adapter", digits="float32")
    made = export_adapter(job, SILENT)
    base = open_bundle(tmp_path / "base")
    found = proof.Beside(base, tmp_path / "adapter" / "adapter.onnx_adapter", exact=True)
    assert error_of(found.logits(IDS), expected) < 1e-3
    assert error_of(found.logits(IDS, adapted=False), expected) > 0.01
    assert len(made.ranks) == 4 * base.manifest.arch.layers

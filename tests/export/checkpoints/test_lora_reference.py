"""PEFT itself trains, saves and merges; what we merge from its folder computes the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from export.checkpoints import open_checkpoint
from export.job import ExportJob
from export.pipeline import export
from tests import tiny
from tests.export.exports import Decoder, error_of
from tests.export.silent import Heard
from tests.export.torch_llama import TorchLlama

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

IDS = [5, 77, 210, 3, 98, 150, 261, 12, 12, 44, 300]
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES: dict[str, tuple[tiny.Config, dict[str, Any]]] = {
    "attention": (tiny.DEFAULT, {"target_modules": ["q_proj", "v_proj"]}),
    "every linear layer, rank-stabilised": (tiny.DEFAULT, {"target_modules": EVERY, "use_rslora": True}),
    "patterns": (
        tiny.DEFAULT,
        {
            "target_modules": EVERY,
            "rank_pattern": {r"layers\.\d+\.mlp\.up_proj": 3, "model.layers.0.self_attn.q_proj": 7},
            "alpha_pattern": {"down_proj": 2, r"layers\.1\..*_proj": 9},
        },
    ),
    "DoRA": (tiny.DEFAULT, {"target_modules": EVERY, "use_dora": True}),
    "biases": (tiny.Config(attention_bias=True, mlp_bias=True), {"target_modules": EVERY, "bias": "all"}),
    "a head of its own": (tiny.DEFAULT, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]}),
    "embedding and head": (tiny.DEFAULT, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "a tied embedding": (tiny.Config(tied=True), {"target_modules": ["q_proj", "embed_tokens"]}),
    "tied, and the embedding trained alone": (
        tiny.Config(tied=True),
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "tied and trained apart": (
        tiny.Config(tied=True),
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
}


def trained(model: Any, folder: Path, settings: dict[str, Any]) -> Any:
    """A PEFT model whose adapter is random, and saved in `folder`."""
    import peft
    import torch

    torch.manual_seed(1)
    given: dict[str, Any] = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM"} | settings
    config = peft.LoraConfig(**given)
    adapted = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for values in adapted.parameters():
            if values.requires_grad:
                values.add_(torch.randn_like(values) * 0.1)
    adapted.save_pretrained(str(folder))
    return adapted


def logits(model: Any) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        found: NDArray[np.float32] = model(torch.tensor([IDS])).logits[0].numpy()
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_merged_model_computes_what_the_adapted_one_does(name: str, tmp_path: Path) -> None:
    import transformers

    shape, settings = CASES[name]
    base = tiny.write_hf_folder(tmp_path / "base", shape)
    model = trained(transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter", settings)
    with open_checkpoint(base, tmp_path / "adapter") as merged:
        tensors = {tensor: merged.tensor(tensor) for tensor in merged.names()}
        ours = TorchLlama(merged.config, tensors)
    assert error_of(ours.logits(IDS), logits(model)) <= 1e-5


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "lora_alpha": 3}, {"use_dora": True}], ids=str)
def test_merged_weights_are_those_of_merge_and_unload(settings: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    base = tiny.write_hf_folder(tmp_path / "base")
    source = transformers.AutoModelForCausalLM.from_pretrained(base)
    model = trained(source, tmp_path / "adapter", {"target_modules": EVERY} | settings)
    theirs = model.merge_and_unload().state_dict()
    with open_checkpoint(base, tmp_path / "adapter") as merged:
        assert set(merged.names()) == set(theirs)
        for tensor, values in theirs.items():
            np.testing.assert_allclose(merged.tensor(tensor), values.numpy(), rtol=1e-4, atol=1e-6, err_msg=tensor)


def test_gpt2_s_matrices_are_merged_the_way_they_lie(tmp_path: Path) -> None:
    import transformers

    facts = transformers.AutoConfig.for_model("gpt2", vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    source = transformers.AutoModelForCausalLM.from_config(facts)  # type: ignore[no-untyped-call]
    before = {name.removeprefix("transformer."): t.numpy().copy() for name, t in source.state_dict().items()}
    base = tiny.write_hf_folder(tmp_path / "base")
    tiny.write_json(base / "config.json", facts.to_dict())
    del before["lm_head.weight"]  # tied, and the file has the names of the model without its head, as OpenAI's does
    safetensors.numpy.save_file(before, base / "model.safetensors")
    model = trained(source, tmp_path / "adapter", {"target_modules": ["c_attn", "c_proj", "c_fc"]})
    theirs = model.merge_and_unload().state_dict()
    with open_checkpoint(base, tmp_path / "adapter") as merged:
        for name in merged.names():
            expected = theirs[f"transformer.{name}"].numpy()
            np.testing.assert_allclose(merged.tensor(name), expected, rtol=1e-4, atol=1e-6, err_msg=name)
        assert {name for name in before if not np.array_equal(merged.tensor(name), before[name])} == {
            f"h.{i}.{part}.weight"
            for i in range(2)
            for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        }


def test_more_tokens_come_with_the_adapter(tmp_path: Path) -> None:
    import transformers

    base = tiny.write_hf_folder(tmp_path / "base")
    source = transformers.AutoModelForCausalLM.from_pretrained(base)
    source.resize_token_embeddings(324)
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    model = trained(source, tmp_path / "adapter", settings)
    with open_checkpoint(base, tmp_path / "adapter") as merged:
        tensors = {tensor: merged.tensor(tensor) for tensor in merged.names()}
        ours = TorchLlama(merged.config, tensors)
    found, expected = ours.logits([*IDS, 323]), logits(model)
    assert found.shape[1] == expected.shape[1] == 324
    assert error_of(found[:-1], expected) <= 1e-5


def test_an_exported_adapter_answers_like_peft(tmp_path: Path) -> None:
    import transformers

    base = tiny.write_hf_folder(tmp_path / "base")
    settings = {"target_modules": EVERY}
    model = trained(transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter", settings)
    manifest = export(ExportJob(base, tmp_path / "out", "fp32", adapter=tmp_path / "adapter"), Heard())
    assert manifest.source.file == "base + adapter"
    assert error_of(Decoder(tmp_path / "out", manifest.arch).step(IDS), logits(model)) <= 1e-4

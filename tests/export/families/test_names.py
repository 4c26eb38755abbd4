"""Tensors are found whatever a checkpoint's writer put before or beside their names."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import MissingTensor, UnexpectedTensor
from export.checkpoints import open_checkpoint
from export.families import arch_of, shapes
from export.families.weights import CheckpointWeights
from tests.export.exports import Values, checkpoint
from tests.export.families.cases import gemma3, gemma3_text, gpt2, gpt_neox, stablelm
from tests.export.families.parity import Settings

pytestmark = pytest.mark.reference
ONE = np.zeros(1, np.float32)


def read(settings: Settings, folder: Path) -> tuple[Mapping[str, object], Values]:
    """What transformers writes."""
    from tests.export.families.originals import Original

    with open_checkpoint(Original(settings, folder).folder) as made:
        return made.config, {name: made.tensor(name) for name in made.names()}


def check_same(config: Mapping[str, object], tensors: Values, renamed: Values) -> None:
    assert set(tensors).isdisjoint(renamed)
    plain, other = (checkpoint(config, values) for values in (tensors, renamed))
    arch = arch_of(plain)
    expected, found = CheckpointWeights(plain, arch), CheckpointWeights(other, arch)
    for name, shape in shapes(arch):
        assert found.tensor(name).shape == shape
        np.testing.assert_array_equal(found.tensor(name), expected.tensor(name))


def test_gpt2_is_published_without_its_heads_prefix_and_with_masks(tmp_path: Path) -> None:
    config, tensors = read(gpt2.BASE, tmp_path)
    masks = {"h.0.attn.bias": ONE, "h.1.attn.masked_bias": ONE}
    check_same(config, tensors, {name.removeprefix("transformer."): v for name, v in tensors.items()} | masks)


def test_gemma3_has_two_orders_of_prefixes(tmp_path: Path) -> None:
    config, tensors = read(gemma3.BASE, tmp_path)
    text = {f"model.language_model.{n.split('.', 2)[2]}": v for n, v in tensors.items() if n.startswith("language_")}
    vision = {f"model.{name}": value for name, value in tensors.items() if not name.startswith("language_")}
    assert text
    assert vision
    check_same(config, tensors, text | vision)


def test_a_gemma3_text_model_has_no_vision_tower(tmp_path: Path) -> None:
    config, tensors = read(gemma3_text.BASE, tmp_path)
    extra = checkpoint(config, {**tensors, "vision_tower.embeddings.weight": ONE})
    with pytest.raises(UnexpectedTensor, match="vision_tower"):
        CheckpointWeights(extra, arch_of(extra))


def test_old_gpt_neox_files_hold_masks_and_frequencies(tmp_path: Path) -> None:
    config, tensors = read(gpt_neox.BASE, tmp_path)
    buffers = {f"gpt_neox.layers.1.attention.{n}": ONE for n in ("bias", "masked_bias", "rotary_emb.inv_freq")}
    made = checkpoint(config, {**tensors, **buffers})
    CheckpointWeights(made, arch_of(made))


def test_the_norm_of_every_head_is_wanted_and_no_other(tmp_path: Path) -> None:
    config, tensors = read(stablelm.CASES["parallel, a norm of each head"], tmp_path)
    name = "model.layers.1.self_attn.k_layernorm.norms.{}.weight"
    short = checkpoint(config, {key: value for key, value in tensors.items() if key != name.format(1)})
    with pytest.raises(MissingTensor, match=r"layers\.1\.self_attn\.k_layernorm\.norms\.1\.weight"):
        CheckpointWeights(short, arch_of(short))
    long = checkpoint(config, {**tensors, name.format(2): tensors[name.format(1)]})
    with pytest.raises(UnexpectedTensor, match=r"norms\.2\.weight"):
        CheckpointWeights(long, arch_of(long))

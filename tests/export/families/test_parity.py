"""Every family against its original, and what each refuses. Cases are in `cases/`, one file a family."""

from pathlib import Path
from types import ModuleType

import pytest

from edgekit.errors import UnsupportedCheckpoint
from edgekit.quant import Precision
from export.families import FAMILIES, arch_of
from tests.export.exports import checkpoint
from tests.export.families import parity
from tests.export.families.cases import (
    cohere,
    cohere2,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gemma3_text,
    gpt2,
    gpt_neox,
    granite,
    jais,
    llama,
    mistral,
    nemotron,
    olmo,
    olmo2,
    phi,
    phi3,
    qwen2,
    qwen3,
    smollm3,
    stablelm,
    starcoder2,
)

MODULES: dict[str, ModuleType] = {
    "llama": llama,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "gemma3_text": gemma3_text,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "granite": granite,
    "mistral": mistral,
    "olmo": olmo,
    "olmo2": olmo2,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "smollm3": smollm3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "phi": phi,
    "phi3": phi3,
    "falcon": falcon,
    "nemotron": nemotron,
    "cohere": cohere,
    "cohere2": cohere2,
    "jais": jais,
}
CASES = {f"{family}: {name}": case for family, module in MODULES.items() for name, case in module.CASES.items()}
REFUSED = {f"{family}: {name}": (family, *each) for family, m in MODULES.items() for name, each in m.REFUSED.items()}


def test_every_family_has_a_case() -> None:
    assert set(MODULES) == set(FAMILIES)
    for family, module in MODULES.items():
        assert {case["model_type"] for case in module.CASES.values()} == {family}


@pytest.mark.reference
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    parity.check_float(CASES[name], tmp_path)


@pytest.mark.reference
@pytest.mark.parametrize("precision", ["int4", "int8"])
@pytest.mark.parametrize("name", CASES)
def test_quantised_logits_are_those_of_integer_arithmetic(name: str, precision: Precision, tmp_path: Path) -> None:
    parity.check_quantised(CASES[name], tmp_path, precision)


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_cannot_be_carried_is_named(name: str) -> None:
    family, changed, named = REFUSED[name]
    settings = dict(next(iter(MODULES[family].CASES.values())))
    arch_of(checkpoint(settings, {}))
    with pytest.raises(UnsupportedCheckpoint) as caught:
        arch_of(checkpoint(settings | dict(changed), {}))
    assert named in str(caught.value)

"""Every family against its original, and what each refuses. Cases are in `cases/`, one file a family."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from edgekit.errors import UnsupportedCheckpoint
from edgekit.quant import Precision
from export.families import FAMILIES, arch_of
from tests.export.exports import checkpoint
from tests.export.families import parity

MODULES: dict[str, ModuleType] = {
    family: importlib.import_module(f"tests.export.families.cases.{family}") for family in FAMILIES
}
CASES = {f"{family}: {name}": case for family, module in MODULES.items() for name, case in module.CASES.items()}
REFUSED = {f"{family}: {name}": (family, *each) for family, m in MODULES.items() for name, each in m.REFUSED.items()}


def test_every_family_has_a_case() -> None:
    cases = {file.stem for file in Path(__file__).with_name("cases").glob("*.py")} - {"__init__"}
    assert cases == set(FAMILIES)
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

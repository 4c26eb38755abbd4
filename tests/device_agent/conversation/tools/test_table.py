"""A model's syntax is found in its chat template."""

import pytest

from device_agent.conversation.tools.table import SYNTAXES, syntax_of
from tests.families import FAMILIES

WRITES = {**dict.fromkeys(FAMILIES), "gemma": "generic", "chatml": "generic"}


@pytest.mark.parametrize(("family", "name"), [(family, name or family) for family, name in WRITES.items()])
def test_a_familys_template_tells_how_it_calls(family: str, name: str) -> None:
    assert syntax_of(FAMILIES[family]).name == name


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (None, "generic"),
        ("", "generic"),
        ("<tool_call>\n<function=name>", "generic"),
        ("<|tool_call|>", "granite"),
    ],
)
def test_what_is_written_in_no_known_way_is_generic(template: str | None, name: str) -> None:
    assert syntax_of(template).name == name


def test_names_of_syntaxes_are_their_own() -> None:
    assert len({syntax.name for syntax in SYNTAXES}) == len(SYNTAXES)

"""Names are taken apart, versions are put in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.shelf import names


@given(st.text(max_size=700))
def test_any_text_is_a_name_or_is_none(text: str) -> None:
    found = names.parse(text)
    if found is not None:
        adapter = f":{found.adapter}" if found.adapter else ""
        strategy = f"@{found.strategy}" if found.strategy else ""
        assert text in {found.base + adapter + strategy, adapter + strategy}


@pytest.mark.parametrize("text", ["a@b:c", "a::b", ":", "@", "a:b:c", "a@b@c", "a ", "a\n", "ä", "a/b", "a" * 201])
def test_what_is_no_name(text: str) -> None:
    assert names.parse(text) is None


@pytest.mark.parametrize(
    "ordered",
    [
        ["1", "1.0", "1.0.1", "1.2", "1.10", "2"],
        ["2.0-alpha", "2.0-alpha.1", "2.0-rc1", "2.0-rc2", "2.0-rc10", "2.0"],
        ["2025-12-31", "2026-01-02", "2026-01-10"],
        ["1.0.a", "1.0.1"],
        ["v1", "v2", "v10"],
    ],
    ids=lambda versions: versions[-1],
)
def test_versions_are_ordered_as_people_count(ordered: list[str]) -> None:
    backwards = ordered[::-1]
    assert sorted(backwards, key=names.version_order) == ordered


def test_what_was_built_when_is_no_part_of_the_order() -> None:
    assert names.version_order("1.0+b2") == names.version_order("1.0")


@given(st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True)))
def test_all_versions_that_a_manifest_may_have_can_be_compared(versions: list[str]) -> None:
    assert len(sorted(versions, key=names.version_order)) == len(versions)

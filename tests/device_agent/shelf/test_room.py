"""Who makes room for whom, in numbers."""

import pytest

from device_agent.shelf import room
from edgekit.errors import Overloaded
from tests import fakes


@pytest.mark.parametrize(
    ("needed", "held", "idle", "closed"),
    [
        pytest.param(10, [], [], 0, id="an empty shelf has room"),
        pytest.param(10, [40], [50], 0, id="all fit"),
        pytest.param(11, [40], [50], 1, id="one byte too many"),
        pytest.param(30, [], [10, 60, 30], 2, id="the first ones go, as few as will do"),
        pytest.param(100, [], [1, 1], 2, id="all of them go"),
        pytest.param(101, [], [1, 1], 2, id="larger than the budget, alone"),
        pytest.param(101, [], [], 0, id="larger than the budget, on an empty shelf"),
    ],
)
def test_as_few_models_are_closed_as_will_do(needed: int, held: list[int], idle: list[int], closed: int) -> None:
    assert room.to_close(needed, 100, held=held, idle=idle, model="m") == closed


@pytest.mark.parametrize(("needed", "held", "idle"), [(61, [40], []), (61, [40], [50]), (101, [1], [])])
def test_models_in_use_are_no_room_and_nobody_is_closed_for_nothing(
    needed: int, held: list[int], idle: list[int]
) -> None:
    with pytest.raises(Overloaded, match="no memory for m"):
        room.to_close(needed, 100, held=held, idle=idle, model="m")


def test_the_budget_is_what_was_asked_for_or_a_share_of_what_is_free_or_ours() -> None:
    assert room.budget_bytes(5, available=1_000, taken=0) == 5
    assert room.budget_bytes(None, available=1_000, taken=1_000) == 1_400


def test_a_model_takes_its_weights_and_the_cache_of_its_slots() -> None:
    manifest = fakes.manifest()  # a context of 256 tokens, 1,024 bytes each
    assert manifest.memory_bytes(tokens=2_048) == 96_000_000 + 2_048 * 1_024
    assert room.reserved_bytes(manifest, None) == 96_000_000 + 4 * 256 * 1_024
    assert room.reserved_bytes(manifest, 2) == 96_000_000 + 2 * 256 * 1_024

"""A conversation across longrope's limit, in the engine that devices run, against transformers without a cache."""

from pathlib import Path

import pytest

from device_agent.engine.graphs.longrope import LongropeRows
from device_agent.engine.graphs.session import open_rows
from edgekit.bundle import open_bundle
from tests.export.exports import error_of, export_tiny
from tests.export.families.cases import phi3
from tests.export.families.parity import FOLLOWING, PROMPT

LIMIT = 24
IDS = PROMPT + FOLLOWING


@pytest.mark.reference
@pytest.mark.parametrize("window", [None, 9], ids=["all", "window"])
def test_every_step_is_that_of_a_fresh_text(
    window: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.export.families.originals import Original

    monkeypatch.setattr("device_agent.engine.graphs.longrope.CHUNK_TOKENS", 10)  # read again in several pieces
    long = {"original_max_position_embeddings": LIMIT, "rope_scaling": phi3.LONG}
    original = Original({**phi3.BASE, **long, "sliding_window": window}, tmp_path / "source")
    export_tiny(original.folder, tmp_path / "out")
    rows = open_rows(open_bundle(tmp_path / "out"), threads=1)
    assert isinstance(rows, LongropeRows)

    def check(start: int, stop: int) -> None:
        expected = original.logits(IDS[:stop])[start:stop]
        assert error_of(rows.read(0, IDS[start:stop], keep=stop - start), expected) <= 1e-4, stop

    check(0, 20)
    short = rows.snapshot(0, 20)
    for stop in range(21, 30):  # crossing, token by token
        check(stop - 1, stop)
    check(29, 50)
    rows.truncate(0, 15)
    check(15, 18)  # a short text again
    check(18, 40)  # crossing within one step
    rows.restore(0, short)  # from a long text to a short one
    check(20, 24)
    check(24, 28)
    rows.truncate(0, 0)
    check(0, 50)


def test_the_two_tables_differ() -> None:
    """Or the test above could not fail."""
    assert phi3.LONG["short_factor"] != phi3.LONG["long_factor"]

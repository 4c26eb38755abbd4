"""Rows over a real graph: the tiny model's, with either kind of cache."""

from collections.abc import Callable

from device_agent.engine.graphs.session import open_rows
from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.rows import Floats
from edgekit.bundle import Bundle
from tests.device_agent.bundles import CONTEXT, INT8, TINY, VOCAB

IDS = [(7919 * i + 13) % VOCAB for i in range(CONTEXT)]
TOLERANCES = {TINY: 1e-4, INT8: 2e-2}
"""Of the largest logit. Sums are in another order with more rows; in an INT8 cache that decides the code of a value in
the middle between two."""

Same = Callable[[Floats, Floats], None]
"""Fails unless logits are the same but for that."""


def opened(bundle: Bundle) -> OnnxRows:
    rows = open_rows(bundle, threads=1)
    assert isinstance(rows, OnnxRows)
    return rows


def emptied(rows: OnnxRows) -> OnnxRows:
    for row in range(rows.most_rows):
        rows.truncate(row, 0)
    rows.attach(None)
    rows.shrink()
    return rows

from dataclasses import dataclass

import pytest

from device_agent.engine.scheduling.costs import Costs
from device_agent.engine.scheduling.turns import Decode, Pace, Read, Reader, next_turn


def costs(*, decode_s: dict[int, float], read_s: dict[int, float]) -> Costs:
    found = Costs()
    for size, took_s in decode_s.items():
        found.note_decode(size, took_s)
    for size, took_s in read_s.items():
        found.note_read(size, took_s)
    return found


FLAT = costs(decode_s={1: 10.0, 4: 20.0}, read_s={1: 10.0, 2: 10.5, 4: 12.0, 8: 20.0, 128: 300.0})
"""As a model whose weights are most of its work: reading 8 tokens takes as long as decoding 4 rows."""
STEEP = costs(decode_s={1: 10.0, 4: 13.0}, read_s={1: 10.0, 2: 20.0, 4: 40.0, 128: 1280.0})
QUICK = costs(decode_s={1: 0.007}, read_s={1: 0.007, 128: 0.12, 256: 0.25})
NEW = Costs()
USUAL = Pace()


@dataclass(frozen=True)
class Case:
    """Readers as (row, left, served)."""

    expected: Decode | Read | None
    readers: tuple[tuple[int, int, int], ...] = ()
    writers: tuple[int, ...] = ()
    costs: Costs = FLAT
    pace: Pace = USUAL
    read_last: bool = False


CASES = {
    "nobody wants anything": Case(None),
    "one writes": Case(Decode((2,)), writers=(2,)),
    "all who write do so together": Case(Decode((0, 3, 1)), writers=(0, 3, 1)),
    "alone, a prompt goes in large chunks": Case(Read(1, 256), readers=((1, 1000, 0),), costs=QUICK),
    "in shorter ones where a client who left would be noticed late": Case(Read(1, 64), readers=((1, 1000, 0),)),
    "the first one is short": Case(Read(1, 64), readers=((1, 1000, 0),), costs=NEW),
    "alone, a chunk takes a small remainder with it": Case(Read(1, 320), readers=((1, 320, 0),), costs=QUICK),
    "but not a large one": Case(Read(1, 256), readers=((1, 321, 0),), costs=QUICK),
    "the chunk's size is a setting": Case(Read(0, 16), readers=((0, 100, 0),), pace=Pace(chunk_tokens=16)),
    "after a read, those who write": Case(Decode((0,)), readers=((1, 100, 0),), writers=(0,), read_last=True),
    "after a decode, a read within the time of one": Case(Read(1, 9), readers=((1, 100, 0),), writers=(0, 2, 3)),
    "no more than is left": Case(Read(1, 5), readers=((1, 5, 0),), writers=(0, 2, 3)),
    "two tokens even where they take too long": Case(Read(1, 2), readers=((1, 100, 0),), writers=(0,), costs=STEEP),
    "streams may be slowed more": Case(
        Read(1, 4), readers=((1, 100, 0),), writers=(0,), costs=STEEP, pace=Pace(stall=5.0)
    ),
    "but a chunk is never larger than alone": Case(
        Read(1, 64), readers=((1, 900, 0),), writers=(0,), pace=Pace(chunk_tokens=64, stall=100.0)
    ),
    "before anything was measured": Case(Read(1, 2), readers=((1, 100, 0),), writers=(0,), costs=NEW),
    "who was served least goes first": Case(Read(2, 70), readers=((0, 300, 50), (2, 70, 49), (3, 1, 60))),
    "the first among equals": Case(Read(2, 30), readers=((2, 30, 5), (1, 40, 5))),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_turn(case: Case) -> None:
    readers = [Reader(*reader) for reader in case.readers]
    found = next_turn(readers, case.writers, case.costs, pace=case.pace, read_last=case.read_last)
    assert found == case.expected

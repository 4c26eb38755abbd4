"""What the model does next when several requests want it. Pure: rows and costs in, a turn out.

Everyone who writes decodes together. Prompts are read in between, one after the other, in chunks that are cut so that
a stream waits at most `stall` times as long for its next token as it will when all of them write. (Not: as it would
with nobody reading. A step is bound by reading the weights, so the shortest chunk costs as much as a decode, and
prompts would be read token by token: those of four requests that came together took half of the whole time.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.engine.scheduling.costs import Costs

CHUNK_TOKENS = 256
"""Prompt tokens per step at most: longer ones gain nothing (SmolLM2 reads 512 tokens in chunks of 64, 128, 256 and 512
at 971, 1007, 1025 and 1031 tokens a second), and memory grows with them."""
SHORT_CHUNK_TOKENS = 64
PATIENCE_S = 1.0
"""A client who left is noticed between two chunks: on a slow model they are shorter, and so is the first one of all."""

FEWEST_TOKENS = 2
"""Of a chunk beside others who write, even if it takes longer than it should: the second token is nearly free (1.08
times one for Phi-2's shape, 1.26 for SmolLM2)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How finely prompts are cut. `stall` 2: a stream's next token may take twice as long while others read."""

    chunk_tokens: int = CHUNK_TOKENS
    stall: float = 2.0


@dataclass(frozen=True, slots=True)
class Reader:
    """A row with `left` tokens still to be read; `served` grows as it gets its share."""

    row: int
    left: int
    served: int


@dataclass(frozen=True, slots=True)
class Decode:
    """One token for each of these rows."""

    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """The next `count` tokens of a row."""

    row: int
    count: int


def next_turn(
    readers: Sequence[Reader], writers: Sequence[int], costs: Costs, *, pace: Pace, read_last: bool
) -> Decode | Read | None:
    """The next step of the model; None if nobody wants one. `read_last`: the step before this one was a read.

    Of several readers, whoever was served least goes first, and the earlier in `readers` among equals.
    """
    if writers and (read_last or not readers):
        return Decode(tuple(writers))
    if not readers:
        return None
    reader = min(readers, key=lambda each: each.served)
    if writers:
        together_s = costs.decode_s(len(writers) + len(readers))
        spare_s = pace.stall * together_s - costs.decode_s(len(writers))
        count = max(FEWEST_TOKENS, costs.read_within(spare_s, most=pace.chunk_tokens))
    else:  # a little more rather than a step of its own for a remainder
        count = min(pace.chunk_tokens, max(SHORT_CHUNK_TOKENS, costs.read_within(PATIENCE_S, most=pace.chunk_tokens)))
        count = count if reader.left > count * 5 // 4 else reader.left
    return Read(reader.row, min(count, reader.left))

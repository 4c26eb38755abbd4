"""From how many tokens on a twin reads a prompt faster: measured once on this processor, and remembered.

A twin makes no logits, so the decoder reads the last token after it: reading n tokens with it costs one step of the
decoder more, which is part of what is measured here.
"""

import hashlib
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from edgekit.errors import EdgekitError
from edgekit.files import write_durably

log = logging.getLogger(__name__)

COUNTS = (8, 16, 32, 64)
"""Tokens of the prompts that are timed. Fewer are never worth a second graph; more always are, if these are."""

ROUNDS = 3
ALWAYS = 1
MOST_CHOICES = 64
"""That are remembered: each update of a model brings another one."""

_MAX_BYTES = 4096
_ROW = 0
Clock = Callable[[], float]


class Graph(Protocol):
    """An opened twin, as rows take it."""

    crossover: int
    """Fewest tokens that it reads instead of the decoder."""


AnyGraph = TypeVar("AnyGraph", bound=Graph)
AnyGraph_contra = TypeVar("AnyGraph_contra", bound=Graph, contravariant=True)


class ScratchRows(Protocol[AnyGraph_contra]):
    """Rows over the decoder's session, with a cache that is nobody else's (engine.rows)."""

    def attach(self, graph: AnyGraph_contra | None) -> None:
        """Let a twin read prompts of its crossover and more."""

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> object:
        """Append ids to a row."""

    def truncate(self, row: int, length: int) -> None:
        """Forget a row's tokens after the first `length`."""


@dataclass(frozen=True)
class Measurement:
    """Seconds that prompts of some length took, by `COUNTS`: with the decoder alone, and with the twin."""

    decoder_s: Sequence[float]
    twin_s: Sequence[float]

    @property
    def crossover(self) -> int | None:
        """Fewest tokens from which on the twin is always the faster one; None if it is not even for the most."""
        found = None
        for count, one, other in zip(reversed(COUNTS), reversed(self.decoder_s), reversed(self.twin_s), strict=True):
            if other >= one:
                break
            found = count
        return found


def measure(rows: ScratchRows[AnyGraph], graph: AnyGraph, *, context_tokens: int, clock: Clock) -> Measurement:
    """Time both, in turns, so that what else the machine does hits both alike. Raises BundleError."""
    graph.crossover = ALWAYS
    decoder_s, twin_s = [], []
    for count in COUNTS:
        ids = [1] * min(count + 1, context_tokens)
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS + 1):
            for each, attached in zip(taken, (None, graph), strict=True):
                rows.attach(attached)
                rows.truncate(_ROW, 0)
                started = clock()
                rows.read(_ROW, ids)
                each.append(clock() - started)
        # The first round makes buffers and reads weights from disk.
        decoder_s.append(statistics.median(taken[0][1:]))
        twin_s.append(statistics.median(taken[1][1:]))
    rows.attach(None)
    rows.truncate(_ROW, 0)
    return Measurement(decoder_s, twin_s)


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was found: fewest tokens, None for never."""

    crossover: int | None


@dataclass(frozen=True)
class Memory:
    """Choices on disk, under `root`; `facts` are all that they depend on."""

    root: Path
    facts: Sequence[str]

    @property
    def path(self) -> Path:
        """The file of these facts."""
        return self.root / f"choice-{hashlib.sha256(chr(0).join(self.facts).encode()).hexdigest()[:32]}.json"

    def recall(self) -> Choice | None:
        """What was remembered; None for nothing, or nothing that can be read."""
        try:
            if self.path.stat().st_size > _MAX_BYTES:
                return None
            return msgspec.json.decode(self.path.read_bytes(), type=Choice)
        except (OSError, msgspec.DecodeError):
            return None

    def remember(self, choice: Choice) -> None:
        """Write it down; a disk that refuses only means that it is measured again."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._drop_oldest()
            write_durably(self.path, msgspec.json.encode(choice))
        except OSError as error:
            log.warning("the choice of weights for prompts was not remembered: %s", error)

    def _drop_oldest(self) -> None:
        found = sorted(self.root.glob("choice-*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in found[: max(0, len(found) - MOST_CHOICES + 1)]:
            path.unlink(missing_ok=True)


def chosen(rows: ScratchRows[AnyGraph], graph: AnyGraph, memory: Memory, *, context_tokens: int) -> int | None:
    """The crossover that is remembered, or measured now. A failing graph is one that is never used."""
    if (known := memory.recall()) is not None:
        return known.crossover
    try:
        measured = measure(rows, graph, context_tokens=context_tokens, clock=time.perf_counter)
    except EdgekitError as error:
        log.warning("prompts are read with the decoder's own weights: %s", error)
        return None
    log.info("prompts of %s tokens: %s s, with INT8 weights %s s", COUNTS, measured.decoder_s, measured.twin_s)
    memory.remember(Choice(measured.crossover))
    return measured.crossover

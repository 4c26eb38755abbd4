"""Timing a loaded model by a plan: the forward passes that serving makes, and a greedy choice of the next token."""

import time
from collections.abc import Callable, Sequence

import psutil

from device_agent.bench.energy import EnergyMeter
from device_agent.bench.plan import Decode, Plan
from device_agent.bench.records import Round, Sample
from device_agent.engine.rows import Rows
from device_agent.engine.scheduling.turns import CHUNK_TOKENS

PIECE_TOKENS = CHUNK_TOKENS
"""Prompt tokens per pass, as in serving: one pass over a long prompt would show memory that no request takes."""


class Timer:
    """Measures one model. `energy` is read around every measurement."""

    def __init__(self, model: Rows, vocab: int, energy: EnergyMeter) -> None:
        self._model = model
        self._vocab = vocab
        self._energy = energy

    def round(self, plan: Plan) -> Round:
        """Measure everything once. Shallow decodings come after deep ones, wide ones last: what is there is cut."""
        prompts = {tokens: self._prompt(tokens) for tokens in sorted(plan.prompts)}
        order = sorted(plan.decodes, key=lambda case: (case.rows, -case.depth))
        decodes = {case: self._decode(case, plan.decode_tokens) for case in order if case.rows == 1}
        rss_bytes = psutil.Process().memory_info().rss
        decodes |= {case: self._decode(case, plan.decode_tokens) for case in order if case.rows > 1}
        for row in range(plan.most_rows):
            self._model.truncate(row, 0)
        self._model.shrink()
        return Round(
            prompts=tuple(prompts[tokens] for tokens in plan.prompts),
            decodes=tuple(decodes[case] for case in plan.decodes),
            rss_bytes=rss_bytes,
        )

    def _prompt(self, tokens: int) -> Sample:
        """Seconds to the first token of the answer."""
        self._model.truncate(0, 0)
        return self._sample(lambda: self._read(tokens))

    def _decode(self, case: Decode, tokens: int) -> Sample:
        self._fill(case)
        first = dict.fromkeys(range(case.rows), case.depth % self._vocab)
        return self._sample(lambda: self._continue(first, tokens))

    def _continue(self, ids: dict[int, int], tokens: int) -> None:
        for _ in range(tokens):
            logits = self._model.decode(ids)
            ids = dict(zip(ids, logits.argmax(axis=-1).tolist(), strict=True))

    def _fill(self, case: Decode) -> None:
        """Make the case's rows as long as its depth. What they hold does not matter, so it is the same."""
        if self._model.length(0) < case.depth:
            self._read(case.depth)
        self._model.truncate(0, case.depth)
        if case.rows > 1:
            cached = self._model.snapshot(0, case.depth)
            for row in range(1, case.rows):
                self._model.restore(row, cached)

    def _read(self, tokens: int) -> None:
        """Lengthen row 0 to `tokens`, and choose the next one."""
        ids, start = ids_for(tokens, self._vocab), self._model.length(0)
        while tokens - start > PIECE_TOKENS:
            self._model.read(0, ids[start : start + PIECE_TOKENS], keep=0)
            start += PIECE_TOKENS
        self._model.read(0, ids[start:]).argmax()

    def _sample(self, work: Callable[[], object]) -> Sample:
        before = self._energy.read()
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        return Sample(seconds, self._energy.joules_since(before))


def ids_for(count: int, vocab: int) -> Sequence[int]:
    """Spread over the vocabulary: which they are does not change the work, but equal ones would sit in the cache."""
    return [(7919 * i + 104729) % vocab for i in range(count)]

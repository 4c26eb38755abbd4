"""How fast a bundle is on this machine: a prompt, then tokens, by the same loop that serves requests."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from device_agent.engine.generate import StepDecoder, answer
from device_agent.engine.records import GREEDY, Generation
from device_agent.engine.sampling import make_sampler
from device_agent.engine.session import open_decoder
from edgekit.bundle import open_bundle
from edgekit.errors import UsageError
from edgekit.hardware import usable_cores


@dataclass(frozen=True)
class Speed:
    """Medians over the repetitions; times in seconds."""

    prompt_tokens: int
    decode_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    time_to_first_token_s: float
    load_s: float
    rss_bytes: int
    threads: int


class _NoText:
    """Ids are counted, not read: text is not what is measured."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return ""


def measure(
    folder: Path,
    *,
    prompt_tokens: int,
    decode_tokens: int,
    repetitions: int,
    threads: int | None,
    step: Callable[[int, int], None],
) -> Speed:
    """Load `folder` and time it. `step` is told (done, of). Raises BundleError or UsageError (does not fit)."""
    threads = usable_cores() if threads is None else threads
    bundle = open_bundle(folder)
    arch = bundle.manifest.arch
    started = time.perf_counter()
    decoder = open_decoder(bundle, threads=threads)
    load_s = time.perf_counter() - started
    if prompt_tokens < 1 or decode_tokens < 2 or prompt_tokens + decode_tokens > arch.context:
        raise UsageError(
            f"{prompt_tokens} prompt tokens and {decode_tokens} decoded ones: at least 1 and 2 are needed, "
            f"and the model's context is {arch.context}"
        )
    # Ids spread over the vocabulary: which ones they are does not change the work, but equal ones would sit in cache.
    prompt = tuple((7919 * i + 104729) % arch.vocab for i in range(prompt_tokens))
    generation = Generation(prompt=prompt, max_tokens=decode_tokens)
    runs = []
    for done in range(repetitions + 1):  # the first one warms up and is not counted
        step(done, repetitions + 1)
        runs.append(_run(decoder, generation, arch.vocab))
    step(repetitions + 1, repetitions + 1)
    prompts, decodes = zip(*runs[1:], strict=True)
    return Speed(
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        prefill_tokens_per_s=prompt_tokens / statistics.median(prompts),
        decode_tokens_per_s=(decode_tokens - 1) / statistics.median(decodes),
        time_to_first_token_s=statistics.median(prompts),
        load_s=load_s,
        rss_bytes=psutil.Process().memory_info().rss,
        threads=threads,
    )


def _run(decoder: StepDecoder, generation: Generation, vocab: int) -> tuple[float, float]:
    """Seconds to the first token, and from the first to the last."""
    sampler = make_sampler(GREEDY, vocab=vocab)
    pieces = answer(decoder, generation, sampler, tokenizer=_NoText(), eos=frozenset(), cancelled=lambda: False)
    timings = next(piece.timings for piece in pieces if piece.timings is not None)
    return timings.prompt_s, timings.generate_s

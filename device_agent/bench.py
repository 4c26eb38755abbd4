"""How fast a bundle is on this machine: a prompt, then tokens, by the same loop that serves requests."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from device_agent.engine.rows import Rows
from device_agent.engine.session import open_rows
from device_agent.engine.turns import CHUNK_TOKENS
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
    rows = open_rows(bundle, threads=threads, most_rows=1)
    load_s = time.perf_counter() - started
    if prompt_tokens < 1 or decode_tokens < 2 or prompt_tokens + decode_tokens > arch.context:
        raise UsageError(
            f"{prompt_tokens} prompt tokens and {decode_tokens} decoded ones: at least 1 and 2 are needed, "
            f"and the model's context is {arch.context}"
        )
    # Ids spread over the vocabulary: which ones they are does not change the work, but equal ones would sit in cache.
    prompt = tuple((7919 * i + 104729) % arch.vocab for i in range(prompt_tokens))
    runs = []
    for done in range(repetitions + 1):  # the first one warms up and is not counted
        step(done, repetitions + 1)
        runs.append(_run(rows, prompt, decode_tokens))
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


def _run(rows: Rows, prompt: Sequence[int], decode_tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and from the first to the last."""
    started = time.perf_counter()
    rows.truncate(0, 0)
    last = (len(prompt) - 1) // CHUNK_TOKENS * CHUNK_TOKENS
    for start in range(0, last, CHUNK_TOKENS):
        rows.read(0, prompt[start : start + CHUNK_TOKENS], keep=0)
    token = int(rows.read(0, prompt[last:])[0].argmax())
    first = time.perf_counter()
    for _ in range(decode_tokens - 1):
        token = int(rows.decode({0: token})[0].argmax())
    return first - started, time.perf_counter() - first

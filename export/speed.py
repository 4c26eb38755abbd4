"""How fast a finished graph is on the build machine: an idea for its card; `edgekit bench` measures on the device."""

import statistics
import time
from pathlib import Path

import numpy as np

from edgekit import contract
from edgekit.arch import ModelArch
from export.rows import Rows
from export.sessions import open_session

PROMPT_TOKENS, ANSWER_TOKENS, ROUNDS = 64, 32, 3
LARGEST_BYTES = 512 << 20
"""Larger models are not opened whole: an export takes no more memory than a few of their layers."""


def measure(folder: Path, arch: ModelArch, cache: contract.CacheType) -> dict[str, float]:
    """Tokens per second of a prompt and of an answer, medians; nothing for large models and short contexts."""
    large = (folder / contract.DATA_FILE).stat().st_size > LARGEST_BYTES
    if large or arch.context < PROMPT_TOKENS + ANSWER_TOKENS:
        return {}
    session = open_session(folder / contract.MODEL_FILE)
    prompt = (np.arange(PROMPT_TOKENS) * 7919 % arch.vocab)[None]
    runs = [_run(Rows(session, arch, 1, PROMPT_TOKENS + ANSWER_TOKENS, cache), prompt) for _ in range(ROUNDS)]
    read_s, write_s = (statistics.median(each) for each in zip(*runs, strict=True))
    return {
        "prefill_tokens_per_s": round(PROMPT_TOKENS / read_s, 1),
        "decode_tokens_per_s": round(ANSWER_TOKENS / write_s, 1),
    }


def _run(rows: Rows, prompt: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> tuple[float, float]:
    started = time.perf_counter()
    logits = rows.step(prompt)
    read = time.perf_counter()
    for _ in range(ANSWER_TOKENS):
        logits = rows.step(logits.argmax(-1)[:, None])
    return read - started, time.perf_counter() - read

"""Does a bundle work on this machine? Files, hashes, paths, loading, golden tokens or golden vectors."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from device_agent.engine.embed import Embedder
from device_agent.engine.graphs.session import open_embedder, open_rows
from device_agent.engine.records import GREEDY
from device_agent.engine.rows import Rows
from device_agent.engine.sampling import History, make_sampler
from device_agent.loader import read_tokenizer
from edgekit.bundle import Bundle, problems, read_manifest
from edgekit.errors import BundleError, CorruptBundle, EdgekitError
from edgekit.hardware import usable_cores
from edgekit.manifest import Golden, GoldenText

MIN_GOLDEN_COSINE = 0.99
"""Of a golden vector and the one found here. INT8 weights and activations together cost all-MiniLM-L6-v2 0.002 at most,
and what another CPU rounds otherwise is less; a wrong graph, or one with wrong weights, is nowhere near."""

_CHUNK_TOKENS = 256
"""Attention's memory grows with what is read at once, and whoever wrote the manifest chose how long a prompt is."""


def verify(folder: Path, step: Callable[[str], None]) -> list[BundleError]:
    """Everything that is wrong with the bundle; an empty list means that it may run. `step` is told what is checked.

    What would be of no use after a problem is not looked at: golden tokens of changed files, for instance.
    """
    step("files, hashes and paths")
    try:
        bundle = Bundle(folder, read_manifest(folder))
    except BundleError as error:
        return [error]
    found = problems(bundle)
    if found:
        return found
    step("loading")
    checks = _golden_texts if bundle.manifest.task == "embed" else _golden_prompts
    try:
        problem = next(checks(bundle, step), "")
    except BundleError as error:
        return [error]
    return [CorruptBundle(str(folder), problem)] if problem else []


def _golden_prompts(bundle: Bundle, step: Callable[[str], None]) -> Iterator[str]:
    """What is wrong with each golden prompt. Raises BundleError if the bundle cannot be loaded."""
    rows = open_rows(bundle, threads=usable_cores(), most_rows=1)
    total = len(bundle.manifest.golden)
    for number, golden in enumerate(bundle.manifest.golden, 1):
        step(f"golden prompt {number} of {total}")
        if problem := _difference(rows, golden, bundle.manifest.arch.vocab):
            yield f"golden prompt {number} {problem}"


def _golden_texts(bundle: Bundle, step: Callable[[str], None]) -> Iterator[str]:
    """What is wrong with each golden text. Raises BundleError if the bundle cannot be loaded."""
    embedder = open_embedder(bundle, read_tokenizer(bundle), threads=usable_cores())
    golden = () if bundle.manifest.embedding is None else bundle.manifest.embedding.golden
    for number, text in enumerate(golden, 1):
        step(f"golden text {number} of {len(golden)}")
        if problem := distance(embedder, text):
            yield f"golden text {number} {problem}"


def distance(embedder: Embedder, golden: GoldenText) -> str:
    """How the text's tokens or vector differ from what they should be; empty if they do not."""
    try:
        ids = embedder.tokens(golden.text)
        if ids != golden.tokens:
            return f"has the tokens {list(ids)}, and should have {list(golden.tokens)}"
        found, wanted = embedder.embed_tokens([ids])[0].astype(np.float64), np.asarray(golden.vector, np.float64)
    except EdgekitError as error:
        return f"fails: {error}"
    lengths = float(np.linalg.norm(found) * np.linalg.norm(wanted))
    cosine = float(found @ wanted) / lengths if lengths else 0.0
    # Written so that a vector of no numbers fails.
    return "" if cosine >= MIN_GOLDEN_COSINE else f"has another vector: their cosine is {cosine:.3f}"


def _difference(rows: Rows, golden: Golden, vocab: int) -> str:
    """What the greedy tokens after the prompt should be and are not, as far as they must be equal everywhere."""
    wanted = golden.tokens[: golden.sure]
    if len(wanted) != golden.sure:
        return f"has {len(wanted)} tokens, and calls {golden.sure} sure"
    if not wanted:
        return ""
    try:
        given = _greedy(rows, golden.prompt, len(wanted), vocab=vocab)
    except (ValueError, EdgekitError) as error:  # an empty prompt, or one that does not fit, among others
        return f"fails: {error}"
    return "" if given == wanted else f"gives {list(given)}, and should give {list(wanted)}"


def _greedy(rows: Rows, prompt: Sequence[int], count: int, *, vocab: int) -> tuple[int, ...]:
    """The likeliest token after the prompt, and after each. Raises as `Rows.read`, and as a sampler does."""
    sampler, history = make_sampler(GREEDY, vocab=vocab), History(prompt)
    rows.truncate(0, 0)
    logits = rows.read(0, prompt[:_CHUNK_TOKENS])
    for start in range(_CHUNK_TOKENS, len(prompt), _CHUNK_TOKENS):
        logits = rows.read(0, prompt[start : start + _CHUNK_TOKENS])
    tokens = [sampler(logits[0], history)]
    while len(tokens) < count:
        tokens.append(sampler(rows.decode({0: tokens[-1]})[0], history))
    return tuple(tokens)

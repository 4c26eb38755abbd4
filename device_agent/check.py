"""Does a bundle work on this machine? Files, hashes, paths, loading, golden tokens or golden vectors."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from device_agent.engine.embed import Embedder
from device_agent.engine.generate import Limits, StepDecoder, generate
from device_agent.engine.records import GREEDY
from device_agent.engine.sampling import make_sampler
from device_agent.engine.session import open_decoder, open_embedder
from device_agent.model import read_tokenizer
from edgekit.bundle import Bundle, problems, read_manifest
from edgekit.errors import BundleError, CorruptBundle, EdgekitError
from edgekit.hardware import usable_cores
from edgekit.manifest import Golden, GoldenText

MIN_GOLDEN_COSINE = 0.99
"""Of a golden vector and the one found here. INT8 weights and activations together cost all-MiniLM-L6-v2 0.002 at most,
and what another CPU rounds otherwise is less; a wrong graph, or one with wrong weights, is nowhere near."""


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
    decoder = open_decoder(bundle, threads=usable_cores())
    total = len(bundle.manifest.golden)
    for number, golden in enumerate(bundle.manifest.golden, 1):
        step(f"golden prompt {number} of {total}")
        if problem := _difference(decoder, golden, bundle.manifest.arch.vocab):
            yield f"golden prompt {number} {problem}"


def _golden_texts(bundle: Bundle, step: Callable[[str], None]) -> Iterator[str]:
    """What is wrong with each golden text. Raises BundleError if the bundle cannot be loaded."""
    embedder = open_embedder(bundle, read_tokenizer(bundle), threads=usable_cores())
    golden = () if bundle.manifest.embedding is None else bundle.manifest.embedding.golden
    for number, text in enumerate(golden, 1):
        step(f"golden text {number} of {len(golden)}")
        if problem := _distance(embedder, text):
            yield f"golden text {number} {problem}"


def _distance(embedder: Embedder, golden: GoldenText) -> str:
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


def _difference(decoder: StepDecoder, golden: Golden, vocab: int) -> str:
    """What the greedy tokens after the prompt should be and are not, as far as they must be equal everywhere."""
    wanted = golden.tokens[: golden.sure]
    if len(wanted) != golden.sure:
        return f"has {len(wanted)} tokens, and calls {golden.sure} sure"
    if not wanted:
        return ""
    limits = Limits(eos=frozenset(), max_tokens=len(wanted))
    sampler = make_sampler(GREEDY, vocab=vocab)
    try:
        tokens = list(generate(decoder, golden.prompt, sampler, limits=limits, cancelled=lambda: False))
    except EdgekitError as error:  # an empty prompt, or one that does not fit, among others
        return f"fails: {error}"
    given = tuple(token.id for token in tokens)
    return "" if given == wanted else f"gives {list(given)}, and should give {list(wanted)}"

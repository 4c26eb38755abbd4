"""Does a bundle work on this machine? Files, hashes, paths, loading, golden tokens."""

from collections.abc import Callable
from pathlib import Path

from device_agent.engine.generate import Limits, generate
from device_agent.engine.records import GREEDY
from device_agent.engine.sampling import make_sampler
from device_agent.engine.session import OnnxDecoder, open_decoder
from edgekit.bundle import Bundle, problems, read_manifest
from edgekit.errors import BundleError, CorruptBundle, EdgekitError
from edgekit.hardware import usable_cores
from edgekit.manifest import Golden


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
    try:
        decoder = open_decoder(bundle, threads=usable_cores())
    except BundleError as error:
        return [error]
    total = len(bundle.manifest.golden)
    for number, golden in enumerate(bundle.manifest.golden, 1):
        step(f"golden prompt {number} of {total}")
        if problem := _difference(decoder, golden, bundle.manifest.arch.vocab):
            return [CorruptBundle(str(folder), f"golden prompt {number} {problem}")]
    return []


def _difference(decoder: OnnxDecoder, golden: Golden, vocab: int) -> str:
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

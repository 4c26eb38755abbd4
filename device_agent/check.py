"""Does a bundle work on this machine? Files, hashes, paths, loading, golden tokens."""

from collections.abc import Callable
from pathlib import Path

from device_agent.engine.generate import CHUNK_TOKENS
from device_agent.engine.session import OnnxDecoder, open_decoder
from edgekit.bundle import Bundle, problems, read_manifest
from edgekit.errors import BundleError, CorruptBundle
from edgekit.hardware import usable_cores
from edgekit.manifest import Golden


def verify(folder: Path, step: Callable[[str], None]) -> list[BundleError]:
    """Everything that is wrong with the bundle; an empty list means that it may run. `step` is told what is checked.

    Raises NotABundle, UnsupportedFormat, CorruptBundle or UnsafePath if there is no manifest to check by.
    """
    bundle = Bundle(folder, read_manifest(folder))
    step("files, hashes and paths")
    found = problems(bundle)
    if found:
        return found
    step("loading")
    try:
        decoder = open_decoder(bundle, threads=usable_cores())
    except BundleError as error:
        return [error]
    for number, golden in enumerate(bundle.manifest.golden, 1):
        step(f"golden prompt {number} of {len(bundle.manifest.golden)}")
        tokens = _continue(decoder, golden)
        if tokens != golden.tokens[: golden.sure]:
            text = f"golden prompt {number} gives {list(tokens)}, and should give {list(golden.tokens[: golden.sure])}"
            return [CorruptBundle(str(folder), text)]
    return []


def _continue(decoder: OnnxDecoder, golden: Golden) -> tuple[int, ...]:
    """Greedy tokens after the prompt, as many as must be equal everywhere."""
    decoder.truncate(0)
    steps = [golden.prompt[at : at + CHUNK_TOKENS] for at in range(0, len(golden.prompt), CHUNK_TOKENS)]
    tokens: list[int] = []
    while len(tokens) < golden.sure:
        for ids in steps:
            logits = decoder.step(ids)
        tokens.append(int(logits.argmax()))
        steps = [(tokens[-1],)]
    return tuple(tokens)

"""Does the engine say the same whatever it does to be fast? Greedy answers, each way against the plain one.

    python tests/bench/equal.py BUNDLE... [--tokens 60]

Plain is one request at a time, nothing kept, nothing guessed, prompts read with the decoder's weights. The other
ways change one thing each. Where an answer parts from the plain one, the plain model's logits say how close the two
tokens were: sums in another order move them a little, and rounded activations carry that on. Printed are how many
answers are equal to the last token, and the largest of these distances, beside the range of all logits.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))
from device_agent import Model
from device_agent.engine.graphs.session import open_rows
from device_agent.engine.records import EngineSettings, Generation
from device_agent.engine.rows import Rows
from edgekit.bundle import open_bundle
from edgekit.chat import Message
from edgekit.hardware import usable_cores
from tests.bench.guessing_tasks import COPYING, PLAIN

Ids = tuple[int, ...]
ALONE = EngineSettings(slots=1, prefix_bytes=0, guess=False, prefill="int4")


@dataclass(frozen=True)
class Way:
    """How answers are made: settings, how many requests at once, whether each prompt was there before."""

    settings: EngineSettings
    together: int = 1
    twice: bool = False


WAYS = {
    "prompts in chunks of 24": Way(replace(ALONE, chunk_tokens=24)),
    "continued from a kept text": Way(replace(ALONE, prefix_bytes=1 << 30), twice=True),
    "four together": Way(replace(ALONE, slots=4), together=4),
    "with guesses": Way(replace(ALONE, guess=True)),
    "prompts by INT8 weights": Way(replace(ALONE, prefill="int8")),
}


def answers(folder: Path, way: Way, state: Path, tokens: int) -> list[Ids]:
    """The answer to every prompt."""
    with Model.open(folder, engine=way.settings, state=state) as model:
        prompts = [
            model.chat_prompt([Message(role="user", content=text)]) for text in (*COPYING.values(), *PLAIN.values())
        ]
        found: list[Ids] = []
        for start in range(0, len(prompts), way.together):
            group = [Generation(prompt=prompt, max_tokens=tokens) for prompt in prompts[start : start + way.together]]
            if way.twice:
                for generation in group:
                    list(model.submit(replace(generation, max_tokens=3)))
            queued = [model.submit(generation) for generation in group]
            found += [tuple(token for piece in each for token in piece.tokens) for each in queued]
        return found


def distance(rows: Rows, prompt: Ids, one: Ids, other: Ids) -> tuple[float, float]:
    """How far apart the logits of the first tokens that differ are, and the range of all of them."""
    same = next(at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    rows.truncate(0, 0)
    logits = rows.read(0, (*prompt, *one[:same]))[0]
    return abs(float(logits[one[same]] - logits[other[same]])), float(logits.max() - logits.min())


def compare(folder: Path, tokens: int) -> None:
    """Print a bundle's rows."""
    rows = open_rows(open_bundle(folder), threads=usable_cores(), most_rows=1)
    with TemporaryDirectory() as scratch, Model.open(folder, engine=ALONE) as model:
        prompts = [
            model.chat_prompt([Message(role="user", content=text)]) for text in (*COPYING.values(), *PLAIN.values())
        ]
        plain = answers(folder, Way(ALONE), Path(scratch), tokens)
        for name, way in WAYS.items():
            found = answers(folder, way, Path(scratch), tokens)
            print(f"| {folder.name} | {name} | {_told(rows, prompts, plain, found)} |", flush=True)


def _told(rows: Rows, prompts: Sequence[Ids], plain: Sequence[Ids], found: Sequence[Ids]) -> str:
    parted = [(p, a, b) for p, a, b in zip(prompts, plain, found, strict=True) if a != b]
    equal = f"{len(plain) - len(parted)} of {len(plain)}"
    if not parted:
        return f"{equal} | "
    apart = [distance(rows, *each) for each in parted]
    return f"{equal} | {max(gap for gap, _ in apart):.3f} of {min(width for _, width in apart):.0f}"


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--tokens", type=int, default=60)
    options = parser.parse_args()
    print("| bundle | way | equal answers | where they part, logits at most apart |")
    print("|---|---|---|---|")
    for folder in options.bundles:
        compare(folder, options.tokens)


if __name__ == "__main__":
    main()

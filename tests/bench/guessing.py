"""Decoding with guessed tokens against decoding without, on answers that repeat their prompt and on others.

    python tests/bench/guessing.py BUNDLE [--draft BUNDLE] [--rounds 5] [--tokens 160] [--json]

Both loops run in one process on the same rows, in turn: A B A B ... Greedy, so that both must say the same; where
they differ, the gap between the two largest logits tells whether rounding decided: a step of one token and one of
several round their INT8 activations differently, which moves logits of SmolLM2 by 0.2 on average and by 1.4 at most
(KL 0.004, as much as these activations cost at all); float bundles differ by 0.00006 and give equal texts. Printed
are medians. What a step costs is measured at the start, as the scheduler measures it while it works.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from device_agent.engine.drafting.guesser import Guesser
from device_agent.engine.drafting.lengths import MOST_GUESSES
from device_agent.engine.drafting.model import ModelDrafter
from device_agent.engine.drafting.verify import verified
from device_agent.engine.graphs.session import open_rows
from device_agent.engine.records import GREEDY
from device_agent.engine.rows import Rows
from device_agent.engine.sampling import History, make_sampler
from device_agent.engine.text.prompt import PromptEncoder
from device_agent.loader import read_tokenizer
from edgekit.bundle import Bundle, open_bundle
from edgekit.chat import Message, bundle_template
from edgekit.hardware import usable_cores
from tests.bench.guessing_tasks import COPYING, PLAIN

Cost = Callable[[int], float]


@dataclass(frozen=True)
class Setting:
    """What both loops share."""

    rows: Rows
    eos: frozenset[int]
    vocab: int
    tokens: int


@dataclass(frozen=True)
class Run:
    """One answer: its tokens, the seconds after the first one, and the steps of the model that it took."""

    ids: list[int]
    seconds: float
    steps: int


@dataclass(frozen=True)
class Result:
    """One task. `gap` is that of the two largest logits where the answers differ, None if they do not."""

    task: str
    tokens: int
    plain_per_s: float
    guessed_per_s: float
    ratio: float
    tokens_per_step: float
    gap: float | None


def plain(setting: Setting, prompt: Sequence[int], first: int) -> Run:
    """A step for each token."""
    sampler, history = make_sampler(GREEDY, vocab=setting.vocab), History(prompt)
    setting.rows.truncate(0, len(prompt))
    ids = [first]
    started = time.perf_counter()
    while len(ids) < setting.tokens and ids[-1] not in setting.eos:
        ids.append(sampler(setting.rows.decode({0: ids[-1]})[0], history))
        history.add(ids[-1])
    return Run(ids, time.perf_counter() - started, len(ids) - 1)


def guessed(setting: Setting, prompt: Sequence[int], first: int, *, guesser: Guesser, cost: Cost) -> Run:
    """Steps of the newest token and what is guessed to follow it."""
    sampler, history = make_sampler(GREEDY, vocab=setting.vocab), History(prompt)
    rows, ids, steps = setting.rows, [*prompt, first], 0
    rows.truncate(0, len(prompt))
    most = len(prompt) + setting.tokens
    started = time.perf_counter()
    while len(ids) < most and ids[-1] not in setting.eos:
        drafts = guesser.guess(ids, room=most - len(ids) - 1, cost=cost)
        newest = ids[-1]
        logits = rows.read(0, [newest, *drafts], keep=len(drafts) + 1) if drafts else rows.decode({0: newest})
        ids += verified(logits, drafts, sampler, history, stop=setting.eos.__contains__)
        rows.truncate(0, len(ids) - 1)  # the newest token is not read yet
        steps += 1
    return Run(ids[len(prompt) :], time.perf_counter() - started, steps)


def measured_cost(rows: Rows, *, depth: int = 200) -> Cost:
    """Seconds of a step by its tokens, after `depth` others: medians."""
    rows.truncate(0, 0)
    rows.read(0, [7] * depth)
    table = {}
    for tokens in range(1, MOST_GUESSES + 2):
        taken = []
        for _ in range(5):
            rows.truncate(0, depth)
            started = time.perf_counter()
            if tokens == 1:
                rows.decode({0: 7})
            else:
                rows.read(0, [7] * tokens, keep=tokens)
            taken.append(time.perf_counter() - started)
        table[tokens] = statistics.median(taken)
    return table.__getitem__


def compare(
    setting: Setting, task: str, prompt: Sequence[int], *, cost: Cost, draft: ModelDrafter | None, rounds: int
) -> Result:
    """Both loops on one prompt, in turn; the first round warms up."""
    setting.rows.truncate(0, 0)
    first = int(setting.rows.read(0, prompt)[0].argmax())
    pairs = [
        (plain(setting, prompt, first), guessed(setting, prompt, first, guesser=Guesser(draft), cost=cost))
        for _ in range(rounds + 1)
    ][1:]
    one, other = pairs[0]
    return Result(
        task=task,
        tokens=len(one.ids),
        plain_per_s=statistics.median((len(a.ids) - 1) / a.seconds for a, _ in pairs),
        guessed_per_s=statistics.median((len(b.ids) - 1) / b.seconds for _, b in pairs),
        ratio=statistics.median(a.seconds * (len(b.ids) - 1) / (b.seconds * (len(a.ids) - 1)) for a, b in pairs),
        tokens_per_step=(len(other.ids) - 1) / other.steps,
        gap=None if one.ids == other.ids else _gap(setting.rows, prompt, one.ids, other.ids),
    )


def _gap(rows: Rows, prompt: Sequence[int], one: Sequence[int], other: Sequence[int]) -> float:
    agreed = next(at for at in range(len(one)) if one[at] != other[at])
    rows.truncate(0, len(prompt))
    logits = rows.read(0, one[:agreed])[0]
    low, high = np.partition(logits, -2)[-2:]
    return float(high - low)


def prompts_of(bundle: Bundle, tasks: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """Ids of a chat with one message."""
    tokenizer = read_tokenizer(bundle)
    template = bundle_template(bundle, tokenizer.id_to_token)
    encoder = PromptEncoder(tokenizer, template, bos=bundle.manifest.tokens.bos)
    return {task: encoder.chat([Message(role="user", content=text)]) for task, text in tasks.items()}


def total_ratio(results: Sequence[Result]) -> float:
    """Of the seconds that all these answers take together."""
    before = sum((result.tokens - 1) / result.plain_per_s for result in results)
    after = sum((result.tokens - 1) / result.guessed_per_s for result in results)
    return before / after


def show(title: str, results: Sequence[Result]) -> None:
    """A table."""
    print(f"\n| {title} | tokens | plain tokens/s | guessed tokens/s | ratio | tokens a step | same text |")
    print("|---|---|---|---|---|---|---|")
    for r in results:
        same = "yes" if r.gap is None else f"no, logits {r.gap:.4f} apart"
        rates = f"{r.plain_per_s:.0f} | {r.guessed_per_s:.0f} | {r.ratio:.2f}"
        print(f"| {r.task} | {r.tokens} | {rates} | {r.tokens_per_step:.2f} | {same} |")
    print(f"| all together | {sum(r.tokens for r in results)} | | | {total_ratio(results):.2f} | | |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bundle, threads = open_bundle(options.bundle), usable_cores()
    rows, vocab = open_rows(bundle, threads=threads, most_rows=1), bundle.manifest.arch.vocab
    draft = options.draft and ModelDrafter(open_rows(open_bundle(options.draft), threads=threads), vocab=vocab)
    setting = Setting(rows, frozenset(bundle.manifest.tokens.eos), vocab, options.tokens)
    cost = measured_cost(rows)
    results = {
        title: [
            compare(setting, task, prompt, cost=cost, draft=draft, rounds=options.rounds)
            for task, prompt in prompts_of(bundle, tasks).items()
        ]
        for title, tasks in {"copying": COPYING, "plain": PLAIN}.items()
    }
    steps = {tokens: 1000 * cost(tokens) for tokens in range(1, MOST_GUESSES + 2)}
    if options.json:
        found = {title: [asdict(result) for result in each] for title, each in results.items()}
        print(json.dumps({"step_ms": steps, **found}))
        return
    print("milliseconds of a step by its tokens:", ", ".join(f"{tokens}: {ms:.1f}" for tokens, ms in steps.items()))
    for title, each in results.items():
        show(title, each)


if __name__ == "__main__":
    main()

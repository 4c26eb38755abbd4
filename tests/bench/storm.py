"""Many clients of one model for a long time: who joins, leaves, cancels and asks too much. Nobody may notice others.

    python tests/bench/storm.py BUNDLE [--minutes 10] [--clients 12] [--seed 1]

Every client asks one of a number of prompts at random, some of which begin alike; the greedy answer to each was taken
before, alone. An answer, or what came of it until its client left, must be the beginning of that one: text of another
client's would show at once. (Answers of quantised weights part where two tokens are nearly as likely; give a bundle
of floats, whose sums do not.) Some requests are too long and must be refused, some leave at once, some after a few
pieces. Meanwhile memory is left and loaded again, threads change, and the cache is kept small, so that all of that
happens under load. At the end nothing may run, wait or be left over, and memory must be what it was after the first
tenth of the time.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))
from device_agent import Model
from device_agent.engine.records import EngineSettings, Generation
from edgekit.errors import ContextOverflow, Overloaded
from edgekit.hardware import usable_cores

WORDS = [
    "river",
    "stone",
    "lamp",
    "seven",
    "under",
    "copper",
    "field",
    "slowly",
    "green",
    "window",
    "north",
    "paper",
    "engine",
    "quiet",
    "salt",
    "orange",
]
BEGINNING = "You are the keeper of a lighthouse. Answer in the words of the sea, and never mention the land. " * 3


@dataclass
class Tally:
    """What happened, shared by all clients."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str) -> None:
        """One more of it."""
        with self.lock:
            self.counts[what] += 1


class Client:
    """Asks until the time is over."""

    def __init__(self, model: Model, known: dict[tuple[int, ...], tuple[int, ...]], tally: Tally, seed: int) -> None:
        self._model, self._known, self._tally = model, known, tally
        self._random = random.Random(seed)

    def run(self, until: float) -> None:
        """Until `until`, by the monotonic clock."""
        while time.monotonic() < until:
            try:
                self._ask()
            except Overloaded:
                self._tally.note("turned away")
                time.sleep(self._random.random())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                self._tally.wrong.append(repr(error))

    def _ask(self) -> None:
        draw = self._random.random()
        if draw < 0.05:
            self._too_long()
            return
        prompt, expected = self._random.choice(list(self._known.items()))
        answer = self._model.submit(Generation(prompt=prompt, max_tokens=len(expected)))
        if draw < 0.10:
            answer.cancel()
        leaves_after = self._random.randrange(1, 10) if draw < 0.35 else None
        tokens: list[int] = []
        for number, piece in enumerate(answer, 1):
            tokens += piece.tokens
            if number == leaves_after:
                answer.cancel()
        whole = len(tokens) == len(expected)
        self._tally.note("answered" if whole else "left")
        if tuple(tokens) != expected[: len(tokens)] or not (whole or draw < 0.35):
            self._tally.wrong.append(f"{prompt[-6:]}: {tokens} instead of {expected}")

    def _too_long(self) -> None:
        try:
            self._model.submit(Generation(prompt=(1,) * (self._model.context_tokens + 1)))
        except ContextOverflow:
            self._tally.note("too long")
        else:
            self._tally.wrong.append("a prompt that is too long was taken")


def prompts(model: Model, count: int) -> list[tuple[int, ...]]:
    """Some begin alike, some are short, some long."""
    draw = random.Random(7)
    found = []
    for number in range(count):
        text = " ".join(draw.choices(WORDS, k=draw.choice((3, 8, 40, 150))))
        found.append(model.text_prompt(f"{BEGINNING if number % 2 else ''}{number}: {text}"))
    return found


def main() -> int:
    """0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    alone = EngineSettings(slots=1, prefix_bytes=0, guess=False)
    with Model.open(options.bundle, engine=alone) as model:
        known = {
            prompt: tuple(t for piece in model.submit(Generation(prompt=prompt, max_tokens=24)) for t in piece.tokens)
            for prompt in prompts(model, 16)
        }
    together = EngineSettings(slots=4, prefix_bytes=24 << 20, queue_limit=6, idle_unload_s=2)
    tally = Tally()
    with Model.open(options.bundle, engine=together) as model:
        ended = storm(model, known, tally, options)
    print(", ".join(f"{count:,} {what}" for what, count in sorted(tally.counts.items())))
    print(ended)
    for problem in tally.wrong[:20]:
        print(f"WRONG: {problem}")
    return 1 if tally.wrong else 0


def storm(
    model: Model, known: dict[tuple[int, ...], tuple[int, ...]], tally: Tally, options: argparse.Namespace
) -> str:
    """All clients at once; what is left at the end."""
    seconds = 60 * options.minutes
    until = time.monotonic() + seconds
    clients = [
        threading.Thread(target=Client(model, known, tally, 1000 * options.seed + n).run, args=(until,))
        for n in range(options.clients)
    ]
    for client in clients:
        client.start()
    process, first, draw = psutil.Process(), 0, random.Random(options.seed)
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 5))
        model.engine.set_threads(draw.randint(1, usable_cores()))
        if not first and left < 0.9 * seconds:
            first = process.memory_info().rss
    for client in clients:
        client.join()
    last = process.memory_info().rss
    state = model.state()
    if state.running or state.waiting:
        tally.wrong.append(f"left over: {state}")
    if last > 1.2 * first + (64 << 20):
        tally.wrong.append(f"memory grew from {first:,} to {last:,} bytes")
    return f"memory {first / 1e6:,.0f} MB after a tenth of the time, {last / 1e6:,.0f} MB at its end; {state}"


if __name__ == "__main__":
    sys.exit(main())

"""What serving adds to a model: requests together, the next turn of a chat, streams beside a prompt that is read.

    python tests/bench/serving.py BUNDLE [--rounds 5] [--tokens 64] [--turn-tokens 1500]

One process, through `device_agent.Model` as a server uses it; what is compared is taken in turn, and medians are
printed. `together` is all tokens a second of four requests that come at once, over those of one alone, prompts
included. `second turn` is the time to the first token of a chat's second turn over that of its first. `beside` is the
time between two tokens of a stream while somebody else's prompt of 512 tokens is read, over that alone.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))
import itertools

from device_agent import Model
from device_agent.engine.records import EngineSettings, Generation, Piece, Sampling

PROMPT_TOKENS = 32
STREAM_TOKENS = 192


class Bench:
    """A model, and texts that nobody has asked before: nothing is found among kept ones by chance."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._vocab = model.manifest.arch.vocab
        self._next = 0
        ends = dict.fromkeys(model.manifest.tokens.eos, -100.0)
        self._endless = Sampling(temperature=0.0, logit_bias=ends)

    def text(self, tokens: int) -> tuple[int, ...]:
        """New ids."""
        self._next += 1
        return tuple((7919 * i * self._next + 104729 + 31 * self._next) % self._vocab for i in range(tokens))

    def ask(self, prompt: Sequence[int], tokens: int) -> tuple[list[float], list[int]]:
        """When each piece came, in seconds from now, and the tokens."""
        began = time.perf_counter()
        answer = self._model.submit(Generation(prompt=tuple(prompt), sampling=self._endless, max_tokens=tokens))
        pieces: list[tuple[float, Piece]] = [(time.perf_counter() - began, piece) for piece in answer]
        return [at for at, _ in pieces], [token for _, piece in pieces for token in piece.tokens]

    def rate(self, requests: int, tokens: int) -> float:
        """Tokens a second of so many requests at once."""
        began = time.perf_counter()
        threads = [threading.Thread(target=self.ask, args=(self.text(PROMPT_TOKENS), tokens)) for _ in range(requests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return requests * tokens / (time.perf_counter() - began)

    def turns(self, tokens: int) -> tuple[float, float]:
        """Seconds to the first token of a chat's first turn, whose prompt has so many tokens, and of its second."""
        first = self.text(tokens)
        times, answer = self.ask(first, 24)
        again, _ = self.ask((*first, *answer, *self.text(24)), 4)
        return times[0], again[0]

    def gaps(self, prompt_tokens: int) -> list[float]:
        """Seconds between the pieces of a stream; in its middle a prompt of so many tokens comes (0: none)."""
        found: list[float] = []
        stream = threading.Thread(target=lambda: found.extend(self.ask(self.text(PROMPT_TOKENS), STREAM_TOKENS)[0]))
        stream.start()
        if prompt_tokens:
            self.ask(self.text(prompt_tokens), 1)
        stream.join()
        return [later - earlier for earlier, later in itertools.pairwise(found)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turn-tokens", type=int, default=1500)
    options = parser.parse_args()
    settings = EngineSettings(guess=False, prefill="int8")
    with (
        tempfile.TemporaryDirectory() as state,
        Model.open(options.bundle, engine=settings, state=Path(state)) as model,
    ):
        bench = Bench(model)
        bench.rate(4, 8)
        # One kind of work after the other: making room for long texts that were kept is no part of the others.
        rates = [(bench.rate(1, options.tokens), bench.rate(4, options.tokens)) for _ in range(options.rounds)]
        gaps = [(median(bench.gaps(0)), bench.gaps(512)) for _ in range(options.rounds)]
        turns = [bench.turns(options.turn_tokens) for _ in range(options.rounds)]
    one, four = (median(each[at] for each in rates) for at in (0, 1))
    first, second = (median(each[at] for each in turns) for at in (0, 1))
    alone = median(each for each, _ in gaps)
    beside = [gap for _, stream in gaps for gap in stream if gap > 1.2 * alone]  # while the prompt was read
    ratio = median(four / one for one, four in rates)
    print("| what | alone or first | then | ratio |")
    print("|---|---|---|---|")
    print(f"| four together | {one:.0f} tokens/s | {four:.0f} tokens/s | {ratio:.2f}x |")
    print(
        f"| second turn after {options.turn_tokens} tokens | {first * 1e3:.0f} ms | {second * 1e3:.0f} ms "
        f"| 1/{median(a / b for a, b in turns):.0f} |"
    )
    if beside:
        print(
            f"| stream beside a prompt | {alone * 1e3:.1f} ms | {median(beside) * 1e3:.1f} ms, "
            f"at most {max(beside) * 1e3:.1f} ms | {median(beside) / alone:.1f}x |"
        )


if __name__ == "__main__":
    main()

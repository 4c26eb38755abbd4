"""Our decode loop against onnxruntime-genai's: the same bundle, the same kernels, one process each, in turn.

    python tests/bench/loops.py BUNDLE [--prompt-tokens 128] [--decode-tokens 64] [--rounds 7]

Each engine lives in a process of its own and waits while the other one works: A B A B ... The first round
warms up and is not counted. Printed are medians and the median of the ratios round by round, which holds on a
machine whose speed drifts. Needs the extra `bench`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))


class Round(NamedTuple):
    """One run: seconds to the first token, seconds for the others, the tokens."""

    prompt_s: float
    decode_s: float
    tokens: list[int]


Run = Callable[[list[int], int], Round]


def ours(bundle: Path) -> Run:
    """edgekit's loop, as the agent runs it."""
    from device_agent.engine.graphs.session import open_rows
    from edgekit.bundle import open_bundle
    from edgekit.hardware import usable_cores

    rows = open_rows(open_bundle(bundle), threads=usable_cores(), most_rows=1)

    def run(prompt: list[int], count: int) -> Round:
        started = time.perf_counter()
        rows.truncate(0, 0)
        tokens = [int(rows.read(0, prompt)[0].argmax())]
        first = time.perf_counter()
        while len(tokens) < count:
            tokens.append(int(rows.decode({0: tokens[-1]})[0].argmax()))
        return Round(first - started, time.perf_counter() - first, tokens)

    return run


def genai(bundle: Path) -> Run:
    """onnxruntime-genai's loop, greedy, with its defaults."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(bundle))

    def run(prompt: list[int], count: int) -> Round:
        parameters = onnxruntime_genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(prompt) + count, do_sample=False)
        generator = onnxruntime_genai.Generator(model, parameters)
        started = time.perf_counter()
        generator.append_tokens(np.asarray([prompt], np.int32))
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(count - 1):
            generator.generate_next_token()
        ended = time.perf_counter()
        return Round(first - started, ended - first, [int(token) for token in generator.get_sequence(0)[len(prompt) :]])

    return run


ENGINES = {"edgekit": ours, "onnxruntime-genai": genai}


def work(engine: str, bundle: Path) -> None:
    """A worker: one JSON line in, one out."""
    run = ENGINES[engine](bundle)
    for line in sys.stdin:
        prompt, count = json.loads(line)
        print(json.dumps(run(prompt, count)), flush=True)


def main() -> None:
    """Start both workers, let them take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.bundle)
        return
    prompt = [100 + 7 * i for i in range(options.prompt_tokens)]
    results = compare(options.bundle, prompt, options.decode_tokens, options.rounds)
    same = len({tuple(rounds[0].tokens) for rounds in results.values()}) == 1
    print(f"prompt of {options.prompt_tokens}, {options.decode_tokens} decoded, medians of {options.rounds} rounds\n")
    print("| loop | prompt tokens/s | decode tokens/s |")
    print("|---|---|---|")
    for engine, rounds in results.items():
        prompt_s = statistics.median(each.prompt_s for each in rounds)
        decode_s = statistics.median(each.decode_s for each in rounds)
        print(f"| {engine} | {len(prompt) / prompt_s:.0f} | {(options.decode_tokens - 1) / decode_s:.1f} |")
    pairs = list(zip(results["edgekit"], results["onnxruntime-genai"], strict=True))
    prompt_ratio = statistics.median(b.prompt_s / a.prompt_s for a, b in pairs)
    decode_ratio = statistics.median(b.decode_s / a.decode_s for a, b in pairs)
    print(f"| ratio | {prompt_ratio:.2f}x | {decode_ratio:.2f}x |")
    print(f"\ngreedy tokens equal: {'yes' if same else 'no'}")


def compare(bundle: Path, prompt: list[int], count: int, rounds: int) -> dict[str, list[Round]]:
    """Rounds of each engine, taken in turn, the first one dropped."""
    workers = {
        engine: subprocess.Popen(
            [sys.executable, __file__, str(bundle), "--worker", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for engine in ENGINES
    }
    results: dict[str, list[Round]] = {engine: [] for engine in ENGINES}
    try:
        for _ in range(rounds + 1):
            for engine, worker in workers.items():
                assert worker.stdin is not None
                assert worker.stdout is not None
                worker.stdin.write(json.dumps([prompt, count]) + "\n")
                worker.stdin.flush()
                results[engine].append(Round(*json.loads(worker.stdout.readline())))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return {engine: found[1:] for engine, found in results.items()}


if __name__ == "__main__":
    main()

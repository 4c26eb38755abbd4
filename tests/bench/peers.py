"""edgekit against llama.cpp and onnxruntime-genai: the same shapes, the same threads, one process each, in turn.

    python tests/bench/peers.py --shape NAME BUNDLE FILE.gguf [--shape ...] [--llama PYTHON] [--genai PYTHON]
                                [--genai-model NAME DIR] [--rounds 5] [--threads N] [--json] [--plot FILE.svg]

Work: a prompt of 512 tokens; a prompt of 128 tokens and then 64 tokens decoded one by one. Forward passes only: nobody
samples or writes text. A B C A B C: each engine waits while the others work; the first round warms up and is not
counted. Printed are medians, the median of the ratios round by round (which holds on a machine whose speed drifts), and
how much of the memory's read bandwidth, measured in the same rounds, a decoded token's weights come to. An engine
that was tried with several settings shows its better one for each work.

Each rival needs an environment of its own with numpy:

    python -m venv genai && genai/bin/pip install numpy onnxruntime-genai
    python -m venv llama && CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON" \\
        llama/bin/pip install --no-binary llama-cpp-python numpy llama-cpp-python

with what the CPU has: on one with AVX-512 and VNNI add -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON
-DGGML_AVX512_BF16=ON -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF (built with AMX it dies on virtual machines that hide it).
onnxruntime-genai opens our bundle unless --genai-model names another folder for a shape.

Models: `edgekit export` makes bundles; `llama_reader.py quantise SmolLM2.gguf OUT.gguf q4_0` makes llama.cpp's Q4_0 of
the demo model; `phi2.py` writes one GGUF of Phi-2's shape for both. Needs the extra `export` (it reads GGUF headers).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gguf

sys.path.insert(0, str(Path(__file__).parents[2]))
from device_agent.bench.bandwidth import measure_bandwidth
from device_agent.bench.weights import bytes_per_token
from edgekit.bundle import read_manifest
from edgekit.hardware import usable_cores
from edgekit.plots import Bar, Group, bars

OURS, LLAMA, GENAI = "edgekit", "llama.cpp", "onnxruntime-genai"
_RUNNER = Path(__file__).with_name("runners.py")
_REST_S = 0.2
"""Between turns: onnxruntime's threads spin for a while before they sleep, and would slow whoever is next."""


class Work(NamedTuple):
    """A prompt, and tokens decoded after it."""

    prompt: int
    decode: int


LONG, SHORT, WARM = Work(512, 0), Work(128, 64), Work(128, 16)
_LONG_S = 2


@dataclass(frozen=True)
class Engine:
    """Who runs what: `weight_bytes` are read for every decoded token."""

    name: str
    python: str
    model: Path
    weight_bytes: int


@dataclass(frozen=True)
class Measured:
    """An engine on a shape: tokens a second in each round, with the better setting of each work."""

    engine: str
    load_s: float
    settings: dict[str, str]
    rates: dict[str, tuple[float, ...]]
    weight_bytes: int


@dataclass(frozen=True)
class Shape:
    """All engines on one shape, and the bandwidth in bytes a second beside each round."""

    name: str
    threads: int
    measured: tuple[Measured, ...]
    bandwidths: tuple[float, ...]

    @property
    def bandwidth(self) -> float:
        """The best of all rounds: interference only takes from it."""
        return max(self.bandwidths)


COLUMNS = ("prompt of 512", "prompt of 128", "decode")
Seconds = tuple[float, float]
"""Of a prompt, and of the tokens decoded after it."""
Round = tuple[Seconds, Seconds]
"""Of LONG and of SHORT."""


class Worker:
    """An engine's process. `settings` are the ways to ask it."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self.engine = engine
        self._process = subprocess.Popen(
            [engine.python, str(_RUNNER), engine.name, str(engine.model), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._answer()
        self.load_s: float = ready["load_s"]
        self.settings: list[str] = ready["settings"]

    def run(self, work: Work, setting: str) -> Seconds:
        """One turn."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**work._asdict(), "setting": setting}) + "\n")
        self._process.stdin.flush()
        prompt_s, decode_s = self._answer()
        time.sleep(_REST_S)
        return prompt_s, decode_s

    def warm_up(self) -> None:
        """One pass of each setting; where a pass is long enough to judge by, the others are not tried again."""
        seconds = {setting: sum(self.run(WARM, setting)) for setting in self.settings}
        best = min(self.settings, key=lambda setting: seconds[setting])
        if seconds[best] > _LONG_S:
            self.settings = [best]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.engine.name} ended with {self._process.wait()} on {self.engine.model}")
        return json.loads(line)


@contextmanager
def workers(engines: Sequence[Engine], threads: int) -> Iterator[list[Worker]]:
    """Processes of all engines, ended whatever happens."""
    started: list[Worker] = []
    try:
        for engine in engines:
            started.append(Worker(engine, threads))  # noqa: PERF401 - those that did start are closed if one does not
        yield started
    finally:
        for worker in started:
            worker.close()


def compare(name: str, engines: Sequence[Engine], *, threads: int, rounds: int) -> Shape:
    """Take turns."""
    with workers(engines, threads) as started:
        found: list[dict[str, list[Round]]] = []
        for worker in started:
            print(f"{name}: {worker.engine.name} warms up", file=sys.stderr)
            worker.warm_up()
            found.append({setting: [] for setting in worker.settings})
        bandwidths = []
        for number in range(rounds):
            bandwidths.append(measure_bandwidth(threads).read_bytes_per_s)
            for worker, by_setting in zip(started, found, strict=True):
                print(f"{name}: round {number + 1} of {rounds}, {worker.engine.name}", file=sys.stderr)
                for setting, seconds in by_setting.items():
                    seconds.append((worker.run(LONG, setting), worker.run(SHORT, setting)))
        loads = [worker.load_s for worker in started]
    measured = map(summary, engines, loads, found)
    return Shape(name, threads, tuple(measured), tuple(bandwidths))


def summary(engine: Engine, load_s: float, found: Mapping[str, Sequence[Round]]) -> Measured:
    """Rates by column, of the setting with the best median."""
    settings, rates = {}, {}
    for column in COLUMNS:
        tried = {name: tuple(rate(column, each) for each in seconds) for name, seconds in found.items()}
        best = max(tried, key=lambda name: statistics.median(tried[name]))
        settings[column], rates[column] = best, tried[best]
    return Measured(engine.name, load_s, settings, rates, engine.weight_bytes)


def rate(column: str, seconds: Round) -> float:
    """Tokens a second."""
    long, short = seconds
    return {
        "prompt of 512": LONG.prompt / long[0],
        "prompt of 128": SHORT.prompt / short[0],
        "decode": SHORT.decode / short[1],
    }[column]


def table(shapes: Sequence[Shape]) -> str:
    """Markdown: tokens a second, and in brackets how many times the rival's rate ours is."""
    head = [
        f"| model | engine | {' | '.join(f'{column} (tokens/s)' for column in COLUMNS)} | of the bandwidth | load |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(row for shape in shapes for row in _rows(shape))])


def _rows(shape: Shape) -> Iterator[str]:
    ours = next((each for each in shape.measured if each.engine == OURS), None)
    for each in shape.measured:
        cells = [_cell(each, column, ours) for column in COLUMNS]
        share = each.weight_bytes * statistics.median(each.rates["decode"]) / shape.bandwidth
        yield f"| {shape.name} | {each.engine} | {' | '.join(cells)} | {share:.0%} | {each.load_s:.2f} s |"


def _cell(each: Measured, column: str, ours: Measured | None) -> str:
    median = statistics.median(each.rates[column])
    text = _number(median)
    if ours is None or each is ours:
        return text
    return f"{text} ({ratio(ours, each, column):.2f}x)"


def ratio(one: Measured, other: Measured, column: str) -> float:
    """How many times as fast `one` is: the median over rounds, each against the same round."""
    return statistics.median(a / b for a, b in zip(one.rates[column], other.rates[column], strict=True))


def gguf_bytes_per_token(path: Path) -> int:
    """Stored bytes of all tensors but an embedding of which single rows are read."""
    sizes = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
    looked_up = sizes["token_embd.weight"] if "output.weight" in sizes else 0
    return sum(sizes.values()) - looked_up


def engines_for(bundle: Path, file: Path, options: argparse.Namespace, genai_model: Path | None) -> list[Engine]:
    """Ours and the rivals whose Python was given."""
    ours = bytes_per_token(read_manifest(bundle))
    found = [Engine(OURS, sys.executable, bundle, ours)]
    if options.llama:
        found.append(Engine(LLAMA, options.llama, file, gguf_bytes_per_token(file)))
    if options.genai:
        theirs = ours if genai_model is None else sum(path.stat().st_size for path in genai_model.glob("*.onnx*"))
        found.append(Engine(GENAI, options.genai, genai_model or bundle, theirs))
    return found


def as_json(shapes: Sequence[Shape]) -> str:
    """Everything that was measured, and the ratios to each rival."""
    return json.dumps([_record(shape) for shape in shapes], indent=2)


def _record(shape: Shape) -> dict[str, object]:
    ours = next(each for each in shape.measured if each.engine == OURS)
    return {
        "shape": shape.name,
        "threads": shape.threads,
        "bandwidth_bytes_per_s": shape.bandwidth,
        "engines": [
            {
                "engine": each.engine,
                "load_s": each.load_s,
                "weight_bytes": each.weight_bytes,
                "settings": each.settings,
                "tokens_per_s": each.rates,
                "ours_is_times": {column: ratio(ours, each, column) for column in COLUMNS},
            }
            for each in shape.measured
        ],
    }


def plot(shapes: Sequence[Shape]) -> str:
    """SVG: a group for each shape and work, a bar for each engine."""
    groups = [
        Group(f"{shape.name}, {column}", tuple(_bar(each, column) for each in shape.measured))
        for shape in shapes
        for column in COLUMNS
    ]
    return bars("Tokens a second", groups)


def _bar(each: Measured, column: str) -> Bar:
    median = statistics.median(each.rates[column])
    return Bar(each.engine, median, f"{_number(median)} tokens/s")


def _number(tokens_per_s: float) -> str:
    return f"{tokens_per_s:.0f}" if tokens_per_s >= 100 else f"{tokens_per_s:.1f}"


def main() -> None:
    """Measure every shape, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", nargs=3, action="append", required=True, metavar=("NAME", "BUNDLE", "FILE"), help="may be repeated"
    )
    parser.add_argument("--llama", help="Python of an environment with llama-cpp-python")
    parser.add_argument("--genai", help="Python of an environment with onnxruntime-genai")
    parser.add_argument("--genai-model", nargs=2, action="append", default=[], metavar=("NAME", "DIR"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    genai_models = {name: Path(folder) for name, folder in options.genai_model}
    shapes = []
    for name, bundle, file in options.shape:
        engines = engines_for(Path(bundle), Path(file), options, genai_models.get(name))
        shapes.append(compare(name, engines, threads=options.threads, rounds=options.rounds))
    if options.plot:
        options.plot.write_text(plot(shapes), encoding="utf-8")
    if options.json:
        print(as_json(shapes))
        return
    print(table(shapes))
    for shape in shapes:
        print(f"\n{shape.name}: {shape.threads} threads, memory read at {shape.bandwidth / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()

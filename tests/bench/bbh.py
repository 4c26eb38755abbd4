"""BIG-Bench Hard: what four bits cost in answers, beside what they cost llama.cpp.

    python tests/bench/bbh.py FOLDER [--model MODEL] [--limit 10] [--shots 1] [--seed 0] [--task NAME ...]
                              [--llama-python PYTHON] [--float BUNDLE] [--int4 BUNDLE]

FOLDER holds the data set's JSON files. A fixed sample of every task is asked four times: of MODEL exported in float,
of its INT4 bundle, and with --llama-python (an interpreter that has llama-cpp-python) of llama.cpp in F16 and Q4_K_M,
both made from MODEL if it is a GGUF file. All four get the same ids, and one code scores them. MODEL is the demo model
by default; bundles that exist already can be given. Prints a table: scores, and how often each INT4 gives the answer
of its own float. Rows of exact match are written greedily, the others chosen by likelihood.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from edgekit import contract
from edgekit.bundle import open_bundle
from edgekit.hardware import usable_cores
from export.evaluate.answers import Answer, answers, overall, score
from export.evaluate.prompts import Prompts
from export.evaluate.questions import Sample, Task, read_task, sample
from export.evaluate.reader import Reader
from export.evaluate.reference import open_reader
from tests.bench.precisions import demo_model, edgekit

LLAMA_READER = Path(__file__).with_name("llama_reader.py")
Answers = dict[str, list[Answer]]


@dataclass(frozen=True)
class Asked:
    """A task and the questions that are taken of it."""

    task: Task
    sample: Sample


class LlamaReader:
    """llama.cpp in a process of its own, as a `Reader`."""

    def __init__(self, process: subprocess.Popen[bytes], context_tokens: int) -> None:
        self._process = process
        self.context_tokens = context_tokens
        self._width = int(self._stdout().readline())

    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def after(self, ids: Sequence[int], keep: int) -> NDArray[np.float32]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"ids": list(ids), "keep": keep}).encode() + b"\n")
        self._process.stdin.flush()
        raw = self._stdout().read(keep * self._width * 4)
        return np.frombuffer(raw, "<f4").reshape(keep, self._width)


@contextmanager
def llama(python: str, model: Path, context_tokens: int) -> Iterator[LlamaReader]:
    command = [python, str(LLAMA_READER), "serve", str(model), str(context_tokens), str(usable_cores())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield LlamaReader(process, context_tokens)
        finally:
            process.kill()


def ask(reader: Reader, prompts: Prompts, tasks: Sequence[Asked], name: str) -> Answers:
    """Every question to one engine."""
    found: Answers = {}
    started = time.monotonic()
    for asked in tasks:
        found[asked.task.name] = list(answers(reader, prompts, asked.task, asked.sample, lambda *_: False))
        print(f"[{time.monotonic() - started:6.0f} s] {name}: {asked.task.name}", file=sys.stderr)
    return found


def bundle_bytes(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in (contract.MODEL_FILE, contract.DATA_FILE))


def made(given: Path | None, model: Path, scratch: Path, quant: str) -> Path:
    """The bundle that was given, or one made now."""
    if given is not None:
        return given
    edgekit("export", str(model), "-o", str(scratch / quant), "--quant", quant)
    return scratch / quant


def table(tasks: Sequence[Asked], pairs: Sequence[tuple[Answers, Answers]]) -> Iterator[str]:
    """Markdown rows: for each pair (float, quantised) the two scores and the share of equal answers."""
    columns = [
        [score(asked.task, low[asked.task.name], high[asked.task.name]) for asked in tasks] for high, low in pairs
    ]
    for scores in zip(*([*column, overall(column)] for column in columns), strict=True):
        cells = [f"{s.reference_score or 0:.0%} | {s.score:.0%} | {s.agreement or 0:.0%}" for s in scores]
        yield f"| {scores[0].task} | {scores[0].questions} | {' | '.join(cells)} |"


def main() -> None:
    """Make, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", action="append")
    parser.add_argument("--llama-python")
    parser.add_argument("--float", type=Path)
    parser.add_argument("--int4", type=Path)
    options = parser.parse_args()
    files = [file for file in sorted(options.folder.glob("*.json")) if not options.task or file.stem in options.task]
    if not files:
        sys.exit(f"{options.folder} holds none of those tasks")
    read = [read_task(file) for file in files]
    tasks = [Asked(t, sample(t, limit=options.limit, seed=options.seed, shots=options.shots)) for t in read]
    model = options.model or demo_model()
    with tempfile.TemporaryDirectory() as scratch:
        report(options, tasks, model, Path(scratch))


def report(options: argparse.Namespace, tasks: Sequence[Asked], model: Path, scratch: Path) -> None:
    bundles = [made(options.float, model, scratch, "fp32"), made(options.int4, model, scratch, "int4")]
    prompts = Prompts(open_bundle(bundles[0]), raw=False)
    found, sizes = [], [bundle_bytes(folder) for folder in bundles]
    context = 0
    for folder, name in zip(bundles, ("float", "INT4"), strict=True):
        reader = open_reader(folder)
        context = reader.context_tokens
        found.append(ask(reader, prompts, tasks, name))
    names = ["float", "INT4"]
    for kind in ("f16", "q4_k_m") if options.llama_python else ():
        file = scratch / f"{kind}.gguf"
        subprocess.run([options.llama_python, str(LLAMA_READER), "quantise", str(model), str(file), kind], check=True)
        with llama(options.llama_python, file, min(context, 4096)) as reader_of_llama:
            found.append(ask(reader_of_llama, prompts, tasks, f"llama.cpp {kind}"))
        sizes.append(file.stat().st_size)
        names.append(f"llama.cpp {kind.upper()}")
    pairs = list(zip(found[::2], found[1::2], strict=True))
    heads = " | ".join(f"{high} | {low} | agree" for high, low in zip(names[::2], names[1::2], strict=True))
    print(f"| task | questions | {heads} |")
    print("|---|---|" + "---|" * (3 * len(pairs)))
    print("\n".join(table(tasks, pairs)))
    print(f"| MB | | {' | '.join(f'{size / 1e6:.1f}' + ' |' * (i % 2) for i, size in enumerate(sizes))} |")


if __name__ == "__main__":
    main()

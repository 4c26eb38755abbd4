"""What opening a bundle costs, part by part, and what it leaves in memory.

    python tests/bench/loading.py BUNDLE [--rounds 5] [--decode 60] [--threads N]

Each start is a process of its own, in turn: `plain` is onnxruntime with its defaults, `full` is ours with every file
hashed, `warm` is ours with the stamp of an earlier check, `huge` is `warm` with its memory moved into huge pages
afterwards, `malloc` is `warm` under GLIBC_TUNABLES=glibc.malloc.hugetlb=1. Medians; CPU time is that of all threads.
The page cache is warm: with a cold one the disk is what is measured. Memory is of the loaded model, before a token;
`decode` is the time of one token behind 16 others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

WAYS = ("plain", "full", "warm", "huge", "malloc")
PARTS = ("imports", "bundle", "check", "graph", "tokenizer")
PROMPT_TOKENS = 16


class Clock:
    """Wall and CPU seconds of named parts."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.found[f"{name}.wall"] = time.perf_counter() - wall
        self.found[f"{name}.cpu"] = time.process_time() - cpu


def start(folder: Path, way: str, state: Path, threads: int, decode: int) -> dict[str, float]:
    """One start in this process."""
    clock = Clock()
    if way != "plain":
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with clock.part("imports"):
        import device_agent.model  # noqa: F401  # what a start imports is what is timed
        from device_agent import pages
        from device_agent.checked import checked
        from device_agent.engine.graphs import loading, session
        from device_agent.loader import read_tokenizer
        from edgekit.bundle import open_bundle
    if way == "plain":
        loading.ENTRIES = {"session.intra_op.spin_duration_us": "50"}
        loading.let_go_of_weights = lambda graph: None  # noqa: ARG005  # the name is the function's
    with clock.part("bundle"):
        bundle = open_bundle(folder)
    with clock.part("check"):
        checked(bundle, lambda: None, remembered=None if way in {"plain", "full"} else state)
    with clock.part("graph"):
        rows = session.open_rows(bundle, threads=threads, most_rows=1)
    with clock.part("tokenizer"):
        read_tokenizer(bundle)
    if way == "huge":
        with clock.part("gather"):
            pages.gather()
    memory = resident()
    rows.read(0, range(PROMPT_TOKENS))
    times = []
    for number in range(decode):
        began = time.perf_counter()
        rows.read(0, [number % bundle.manifest.arch.vocab])
        times.append(time.perf_counter() - began)
    return clock.found | memory | {"decode": median(times)}


def resident() -> dict[str, float]:
    """Resident memory now and at its peak, in bytes, by /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    sizes = {
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(":") for line in lines)
        if value.endswith(" kB")
    }
    return {name: sizes[name] for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM")}


def run(folder: Path, way: str, state: Path, threads: int, decode: int) -> dict[str, float]:
    """One start in a new process."""
    environment = dict(os.environ) | ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if way == "malloc" else {})
    command = [sys.executable, __file__, str(folder), "--start", way, "--state", str(state)]
    command += ["--threads", str(threads), "--decode", str(decode)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def table(runs: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """Lines of a Markdown table: parts are CPU ms, memory MiB."""
    parts = [*PARTS, "gather"]
    yield (
        "| start | "
        + " | ".join(parts)
        + " | CPU ms | wall ms | resident | anonymous | file | peak | decode ms | to plain |"
    )
    yield "|---" * (len(parts) + 9) + "|"
    for way, found in runs.items():
        middle = {key: median(one[key] for one in found) for key in found[0]}
        cpu = [middle.get(f"{part}.cpu", 0.0) for part in parts]
        wall = sum(middle[f"{part}.wall"] for part in PARTS)
        memory = [middle[name] / 2**20 for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM")]
        ratio = median(a["decode"] / b["decode"] for a, b in zip(runs[WAYS[0]], found, strict=True))
        cells = [*(f"{1e3 * x:.0f}" for x in (*cpu, sum(cpu[: len(PARTS)]), wall)), *(f"{x:.0f}" for x in memory)]
        yield f"| {way} | " + " | ".join([*cells, f"{1e3 * middle['decode']:.2f}", f"{ratio:.3f}"]) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decode", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        print(json.dumps(start(given.bundle, given.start, given.state, given.threads, given.decode)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch) / "checked"
        run(given.bundle, "warm", state, given.threads, 1)  # fills the page cache, and leaves the stamp
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(given.rounds):
            for way in WAYS:
                runs[way].append(run(given.bundle, way, state, given.threads, given.decode))
    print("\n".join(table(runs)))


if __name__ == "__main__":
    main()

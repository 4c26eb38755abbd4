"""Two hundred updates in a row while everything goes wrong, and a hundred of them with a kill -9 of a real process.

    python tests/bench/endurance.py [--updates 200] [--kills 100] [--seed 1] [--scratch DIR] [--model MODEL.gguf]

The demo model is exported as INT4 and as INT8, and a fine-tune of it (noise of 3 % in its matrices) as INT4 with the
base's scales. They are published in turn as new versions into one repository. A real agent follows it, while clients
stream from it; the agent or `edgekit sync` beside it update, with one fault each (tests/endurance/faults.py): kills,
networks, forgeries, flipped bits, full disks, clocks, releases that do not work.

After each update: every answer so far came whole from one signed release, to the letter; one pass without a fault has
brought what is offered; the disk holds the active release and the one before it, and never held more than one more; and
the agent's memory and open files have not grown. What was not so is printed, and makes the exit code 1.
"""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(1, str(Path(__file__).parents[2] / "packaging"))

from export.checkpoints import open_checkpoint
from tests.bench.versions import Bench, Making, demo_model, noisy, scratch_folder
from tests.endurance.disk import Held
from tests.endurance.run import Plan, Report, run

NOISE = 0.03


def contents(source: Path, scratch: Path, *, noise: float = NOISE) -> Mapping[str, Path]:
    """Bundles of a checkpoint and of a fine-tune of it, each made once."""
    scratch.mkdir(parents=True, exist_ok=True)
    with open_checkpoint(source) as checkpoint:
        bench = Bench(scratch, checkpoint)
        base = bench.bundle("int4", bench.source("base"), Making())
        return {
            "int4": base,
            "int8": bench.bundle("int8", bench.source("base"), Making("int8")),
            "tuned": bench.bundle("tuned", bench.source("tuned", noisy(noise, ())), Making(freeze=base)),
        }


def table(report: Report) -> str:
    """Markdown."""
    life, mb = report.longest_life, 1e6
    lines = ["| fault | updates | median |", "|---|---|---|"]
    lines += [
        f"| {name} | {len(took)} | {report.median_s(name):.1f} s |" for name, took in sorted(report.seconds.items())
    ]
    lines += ["", "| | |", "|---|---|"]
    facts = {
        "updates": f"{report.updates} in {report.took_s / 60:.0f} min, seed {report.seed}",
        "kill -9": f"{sum(report.kills.values())}: "
        + ", ".join(f"{count} of {name}" for name, count in sorted(report.kills.items())),
        "answers": ", ".join(f"{count:,} {what}" for what, count in sorted(report.answers.items()))
        + f"; from {report.served_releases} releases, the longest in {report.longest_answer_s:.1f} s",
        "most disk": f"{report.most_disk_bytes / mb:.0f} MB, {report.most_disk_share:.0%} of what three releases need",
    }
    if life:
        facts["longest life of the agent"] = f"{len(life)} updates; {_memory(life)}; open files {_span(life, 'files')}"
        facts["longest life of the agent"] += f", threads {_span(life, 'threads')}"
    facts["wrong"] = str(len(report.wrong))
    return "\n".join([*lines, *(f"| {name} | {said} |" for name, said in facts.items())])


def _memory(life: Sequence[Held]) -> str:
    """Own memory by content: after the first update to it, the most, and after the last one."""
    kinds = {one.content: [each.rss_bytes for each in life if each.content == one.content] for one in life}
    found = (f"{name} {of[0] / 1e6:.0f}, {max(of) / 1e6:.0f}, {of[-1] / 1e6:.0f} MB" for name, of in kinds.items())
    return "own memory at first, at most, at last: " + "; ".join(sorted(found))


def _span(life: Sequence[Held], what: Literal["files", "threads"]) -> str:
    found = [getattr(one, what) for one in life]
    return f"{min(found)} to {max(found)}"


def main() -> int:
    """0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100, help="of these updates, so many end with a kill -9")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance but the timing")
    parser.add_argument("--model", type=Path, help="checkpoint; the demo model if none is given")
    parser.add_argument("--scratch", type=Path, help="folder that keeps the exports between runs")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the agent ends with us
    with scratch_folder(asked.scratch) as (kept, place):
        plan = Plan(
            contents=contents(asked.model or demo_model(), kept),
            near=frozenset({"int4", "tuned"}),
            updates=asked.updates,
            kills=asked.kills,
            seed=asked.seed,
        )
        report = run(plan, place, lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(asdict(report)) if asked.json else table(report))
    for sentence in report.wrong:
        print(f"WRONG: {sentence}", file=sys.stderr)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

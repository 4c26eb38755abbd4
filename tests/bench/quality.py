"""Quality per byte: KL, same top token and megabytes of several bundles of one model, on one text.

    python tests/bench/quality.py TEXT [--reference SOURCE] [--bundle LABEL=DIR ...] [--make "LABEL=OPTIONS" ...]
                                  [--tokens 8192] [--window 512] [--count all|second-half] [--plot FILE.svg]

SOURCE (default: the demo model) is anything that `edgekit export` takes, or a bundle; its float weights are the
reference. Every --bundle is measured as it is; every --make is exported from SOURCE with OPTIONS of `edgekit export`
first, for instance

    --make "plain=--quant int4" --make "calibrated=--quant int4 --method gptq --calibration other.txt"

Without either, the plain INT4 and INT8 exports are made. Bytes are those of model.onnx and model.onnx.data.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from edgekit import contract
from export.evaluate.job import EvalJob, evaluate
from export.evaluate.text import Count
from export.plots import Point, plot, sweep_table
from tests.bench.bbh import bundle_bytes
from tests.bench.precisions import demo_model, edgekit


class Quiet:
    """Progress that only names stages."""

    def stage(self, title: str) -> None:
        print(title, file=sys.stderr)

    def advance(self, done: int, total: int) -> None:
        """No bar."""


def labelled(value: str) -> tuple[str, str]:
    """LABEL=REST."""
    label, equals, rest = value.partition("=")
    if not equals or not label:
        raise argparse.ArgumentTypeError(f"{value!r} is not LABEL=...")
    return label, rest


def bundles(options: argparse.Namespace, source: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Those that were given, then those that are made."""
    for label, folder in options.bundle:
        yield label, Path(folder)
    wanted = options.make or ([] if options.bundle else [("int4", "--quant int4"), ("int8", "--quant int8")])
    for number, (label, words) in enumerate(wanted):
        folder = scratch / str(number)
        edgekit("export", str(source), "-o", str(folder), *shlex.split(words))
        yield label, folder


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--bundle", type=labelled, action="append", default=[])
    parser.add_argument("--make", type=labelled, action="append", default=[])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--count", choices=("all", "second-half"), default="all")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    source = options.reference or demo_model()
    points = []
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        reference = source
        if not (source / contract.MANIFEST_FILE).is_file():  # once, not for every bundle
            reference = scratch / "reference"
            edgekit("export", str(source), "-o", str(reference), "--quant", "fp32")
        for label, folder in bundles(options, source, scratch):
            job = EvalJob(
                bundle=folder,
                reference=reference,
                text=options.text,
                tokens=options.tokens,
                window=options.window,
                count=Count(options.count),
            )
            found = evaluate(job, Quiet()).text
            assert found is not None
            assert found.kl is not None
            assert found.same_top_token is not None
            points.append(Point(label, bundle_bytes(folder), found.kl, found.same_top_token))
            print(f"{label}: perplexity {found.perplexity:.3f} of {found.reference_perplexity:.3f}", file=sys.stderr)
    print(sweep_table(points), end="")
    if options.plot:
        plot(points, options.plot)


if __name__ == "__main__":
    main()

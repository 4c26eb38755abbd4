"""`edgekit export` and `edgekit families`: what the build machine offers. Light to import."""

import dataclasses
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import Size, print_json
from edgekit.contract import CACHE_TYPES, CacheType
from edgekit.hardware import peak_rss_bytes
from edgekit.quant import BLOCK_SIZES, PRECISIONS, Precision

if TYPE_CHECKING:
    from edgekit.manifest import Manifest
    from export.job import ExportJob
    from export.quantize.plan import Rounding


class Bar:
    """Draws an export's progress on standard error: a line per stage, click's bar where there is a size."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bar = click.progressbar(length=1, file=sys.stderr, width=32)

    def stage(self, title: str) -> None:
        """As `pipeline.Progress`."""
        click.echo(f"[{time.monotonic() - self._started:6.1f} s] {title}", err=True)
        self._bar = click.progressbar(length=1, file=sys.stderr, width=32)

    def advance(self, done: int, total: int) -> None:
        """As `pipeline.Progress`."""
        if not sys.stderr.isatty():  # where there is no terminal, the bar would be an empty line
            return
        self._bar.length = total
        self._bar.update(done - self._bar.pos)
        if done >= total:
            self._bar.render_finish()


@click.command(
    "export",
    epilog="""\b
Examples:
  edgekit export SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2
  edgekit export ./my-fine-tune -o my-model --quant int8 --name my-model --version 2026.1
  edgekit export ./base-model --adapter ./my-lora -o my-model
  edgekit export ./my-fine-tune -o small --method gptq --size-budget 92MB --max-kl 0.1
  edgekit export ./fine-tune-2 -o my-model-2 --version 2 --freeze-scales-from my-model""",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--quant", type=click.Choice(PRECISIONS), default="int4", show_default=True, help="Precision of weights.")
@click.option(
    "--block-size",
    type=click.Choice([str(size) for size in BLOCK_SIZES]),
    default="32",
    show_default=True,
    help="Weights that share a scale: larger is smaller and faster, smaller is nearer to the original.",
)
@click.option(
    "--method",
    type=click.Choice(("rtn", "gptq")),
    default="rtn",
    show_default=True,
    help="Rounding of INT4: to nearest, or calibrated (slower, nearer to the original).",
)
@click.option(
    "--kv",
    type=click.Choice(CACHE_TYPES),
    default="float32",
    show_default=True,
    help="Cached keys and values: int8 takes a quarter of the memory; long prompts are read slower.",
)
@click.option(
    "--size-budget",
    type=Size(),
    help="Largest model, for instance 92MB: layouts and block sizes are chosen by measurement.",
)
@click.option(
    "--calibration",
    default="self",
    show_default=True,
    metavar="FILE|self",
    help="Text for --method gptq, --size-budget and --kv int8; self: the model writes it.",
)
@click.option(
    "--max-kl", type=click.FloatRange(min=0), help="Fail if the KL divergence to the source is larger (nats)."
)
@click.option(
    "--rotate",
    is_flag=True,
    help="Fold a rotation of the residual stream into the weights first (float checkpoints, with --method gptq).",
)
@click.option("--adapter", type=click.Path(path_type=Path), help="Folder of a LoRA (PEFT) to merge into SOURCE.")
@click.option(
    "--freeze-scales-from",
    "freeze",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Round with the scales of a bundle that devices have, so that the update to this one is small.",
)
@click.option(
    "--sweep", is_flag=True, help="Make a bundle of each precision and block size in OUTPUT, and compare them."
)
@click.option("--name", help="What to call the model. Default: the source's file name.")
@click.option("--version", default="1", show_default=True, help="What to call this version of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_command(  # noqa: PLR0913, PLR0917 - click passes one argument for each option
    source: Path,
    out: Path,
    quant: Precision,
    block_size: str,
    method: "Rounding",
    size_budget: int | None,
    calibration: str,
    max_kl: float | None,
    adapter: Path | None,
    freeze: Path | None,
    kv: CacheType,
    name: str | None,
    version: str,
    *,
    rotate: bool,
    sweep: bool,
    as_json: bool,
) -> None:
    """Make a verified, quantised ONNX bundle of SOURCE: a GGUF file or a Hugging Face folder."""
    from export.job import ExportJob  # numpy, onnx and onnxruntime take a second to import
    from export.pipeline import export

    text = None if calibration == "self" else Path(calibration)
    job = ExportJob(
        source, out, quant, name, version, adapter, int(block_size), method, size_budget, text, max_kl, rotate, kv,
        freeze,
    )  # fmt: skip
    if sweep:
        _sweep(job, as_json=as_json)
        return
    started = time.monotonic()
    manifest = export(job, Bar())
    result = _result(out, manifest, time.monotonic() - started)
    if as_json:
        print_json(result)
        return
    click.echo(f"\n{click.style('ok', fg='green', bold=True)}  {out}: {manifest.name} {manifest.version}, {quant}")
    click.echo(
        f"    {manifest.file_bytes / 1e6:,.1f} MB in {result['seconds']:.1f} s,"
        f" at most {peak_rss_bytes() / 1e6:,.0f} MB of memory"
    )
    for line in _layouts(manifest):
        click.echo(f"    {line}")
    click.echo(f"    {_quality(manifest)}")
    click.echo(f"    next: edgekit {'embed' if manifest.task == 'embed' else 'chat'} {out}")


def _result(out: Path, manifest: "Manifest", seconds: float) -> dict[str, Any]:
    return {
        "bundle": str(out),
        "name": manifest.name,
        "version": manifest.version,
        "bytes": manifest.file_bytes,
        "quant": manifest.quant.precision,
        "method": manifest.quant.method,
        "weights": manifest.quant.weights,
        "seconds": round(seconds, 2),
        "peak_rss_bytes": peak_rss_bytes(),
        "quality": manifest.quality,
    }


def _layouts(manifest: "Manifest") -> list[str]:
    """How many matrices of each kind are stored how: the plan in a few lines."""
    counts: dict[str, Counter[str]] = {}
    for name, spec in manifest.quant.weights.items():
        counts.setdefault(spec, Counter())[name.rpartition(".")[2]] += 1
    return [
        f"{spec}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        for spec, kinds in sorted(counts.items())
    ]


def _sweep(job: "ExportJob", *, as_json: bool) -> None:
    from export.plots import sweep_table
    from export.sweep import PLOT, run

    points = run(job, Bar())
    if as_json:
        print_json({"bundles": str(job.out), "plans": [dataclasses.asdict(point) for point in points]})
        return
    click.echo("\n" + sweep_table(points))
    click.echo(f"    plot: {job.out / PLOT}")


def _quality(manifest: "Manifest") -> str:
    """What verification measured, in a line."""
    quality = manifest.quality
    if manifest.task == "embed":
        return (
            f"cosine to the source's vectors {quality['cosine']:.4f}, at least {quality['least_cosine']:.4f}"
            f" ({quality['texts']:.0f} texts)"
        )
    return (
        f"KL to the source {quality['kl']:.4f} nats, same top token {quality['same_top_token']:.1%}"
        f" ({quality['tokens']:.0f} tokens)"
    )


@click.command("families")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def families_command(*, as_json: bool) -> None:
    """List the model families that export knows, and what was checked of each."""
    from export.families import FAMILIES

    if as_json:
        print_json([{"model_type": f.model_type, "names": f.names, "checked": f.checked} for f in FAMILIES.values()])
        return
    for family in FAMILIES.values():
        click.echo(f"{click.style(family.model_type, bold=True)}: {', '.join(family.names)}")
        click.echo(f"    checked: {family.checked}")

"""`edgekit export` and `edgekit families`: what the build machine offers. Light to import."""

import sys
import time
from pathlib import Path

import click

from edgekit.cli import print_json
from edgekit.hardware import peak_rss_bytes
from edgekit.quant import PRECISIONS, Precision


class Bar:
    """Draws an export's progress on standard error: a line per stage, click's bar where there is a size."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bar = click.progressbar(length=1, file=sys.stderr, width=32)

    def stage(self, title: str) -> None:
        """As `pipeline.Progress`."""
        click.echo(f"[{time.monotonic() - self._started:6.1f} s] {title}", err=True)

    def advance(self, done: int, total: int) -> None:
        """As `pipeline.Progress`."""
        self._bar.length = total
        self._bar.update(done - self._bar.pos)
        if done >= total:
            self._bar.render_finish()


@click.command(
    "export",
    epilog="""\b
Examples:
  edgekit export SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2
  edgekit export ./my-fine-tune -o my-model --quant int8 --name my-model --version 2026.1""",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--quant", type=click.Choice(PRECISIONS), default="int4", show_default=True, help="Precision of weights.")
@click.option("--name", help="What to call the model. Default: the source's file name.")
@click.option("--version", default="1", show_default=True, help="What to call this version of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export_command(source: Path, out: Path, quant: Precision, name: str | None, version: str, *, as_json: bool) -> None:
    """Make a verified, quantised ONNX bundle of SOURCE: a GGUF file or a Hugging Face folder."""
    from export.pipeline import ExportJob, export  # numpy, onnx and onnxruntime take a second to import

    started = time.monotonic()
    manifest = export(ExportJob(source, out, quant, name, version), Bar())
    seconds = time.monotonic() - started
    size = manifest.file_bytes
    if as_json:
        print_json(
            {
                "bundle": str(out),
                "name": manifest.name,
                "version": manifest.version,
                "bytes": size,
                "quant": quant,
                "weights": manifest.quant.weights,
                "seconds": round(seconds, 2),
                "peak_rss_bytes": peak_rss_bytes(),
                "quality": manifest.quality,
            }
        )
        return
    quality = manifest.quality
    click.echo(f"\n{click.style('ok', fg='green', bold=True)}  {out}: {manifest.name} {manifest.version}, {quant}")
    click.echo(f"    {size / 1e6:,.1f} MB in {seconds:.1f} s, at most {peak_rss_bytes() / 1e6:,.0f} MB of memory")
    click.echo(
        f"    KL to the source {quality['kl']:.4f} nats, same top token {quality['same_top_token']:.1%}"
        f" ({quality['tokens']:.0f} tokens)"
    )
    click.echo(f"    next: edgekit chat {out}")


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

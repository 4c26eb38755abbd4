"""`edgekit adapter`: LoRAs that stand beside a bundle. Light to import."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import print_json
from export.cli import Bar

if TYPE_CHECKING:
    from export.adapt.convert import Digits

_PATH = click.Path(path_type=Path)


@click.group("adapter")
def adapter_command() -> None:
    """LoRA adapters that a device loads beside a bundle and that requests choose as `base:adapter`."""


@adapter_command.command(
    "export", epilog="\b\nExample:\n  edgekit adapter export ./my-lora --base my-model -o my-adapter --name support"
)
@click.argument("source", metavar="PEFT_DIR", type=_PATH)
@click.option("--base", type=_PATH, required=True, help="Bundle that it is to stand beside.")
@click.option("-o", "--output", "out", type=_PATH, required=True, help="Folder to make.")
@click.option("--name", help="What requests call it: base:NAME. Default: the folder's name.")
@click.option("--version", default="1", show_default=True, help="What to call this version of it.")
@click.option(
    "--digits",
    type=click.Choice(("bfloat16", "float32")),
    default="bfloat16",
    show_default=True,
    help="Of its numbers: float32 keeps all, and makes a release three times as large.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def adapter_export_command(
    source: Path, *, base: Path, out: Path, name: str | None, version: str, digits: "Digits", as_json: bool
) -> None:
    """Make a verified adapter of PEFT_DIR: adapter_config.json and adapter_model.safetensors, a LoRA of linear layers.

    It fits the same model in any quantisation.
    """
    from export.adapt.job import AdapterJob, export_adapter  # numpy, onnx and onnxruntime take a second to import

    started = time.monotonic()
    manifest = export_adapter(AdapterJob(source, base, out, name, version, digits), Bar())
    seconds = time.monotonic() - started
    if as_json:
        print_json(
            {
                "adapter": str(out),
                "name": manifest.name,
                "version": manifest.version,
                "base": manifest.base.name,
                "bytes": manifest.file_bytes,
                "ranks": manifest.ranks,
                "seconds": round(seconds, 2),
                "quality": manifest.quality,
            }
        )
        return
    quality = manifest.quality
    click.echo(
        f"\n{click.style('ok', fg='green', bold=True)}  {out}: {manifest.name} {manifest.version},"
        f" beside {manifest.base.name}"
    )
    click.echo(f"    {manifest.file_bytes / 1e6:,.1f} MB in {seconds:.1f} s, {len(manifest.ranks)} linears")
    click.echo(
        f"    moves the base by {quality['moved_kl']:.4f} nats; rounding costs {quality['kl']:.4f}"
        f" ({quality['tokens']:.0f} tokens)"
    )

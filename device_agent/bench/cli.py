"""`edgekit bench`. Light to import."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import print_json

if TYPE_CHECKING:
    from device_agent.engine.records import PrefillMode


@click.command(
    "bench",
    epilog="""\b
Examples:
  edgekit bench my-model
  edgekit bench my-model --prompt-tokens 512 --decode-tokens 64 --batch 4
  edgekit bench new-model --against old-model
  edgekit bench my-model --full --plot speed.svg""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--prompt-tokens", type=click.IntRange(min=1), help="Length of the prompt. Default: 128, and 512 beside it."
)
@click.option("--decode-tokens", type=click.IntRange(min=2), default=64, show_default=True, help="Decoded after it.")
@click.option(
    "--batch", type=click.IntRange(1, 64), default=1, show_default=True, help="Texts that are decoded together."
)
@click.option("--repetitions", type=click.IntRange(1, 100), default=3, show_default=True, help="Medians are shown.")
@click.option(
    "--full", is_flag=True, help="Prompts of 32 to 2048, decoding after 0 to 2048 tokens and of 1 to 8 texts: minutes."
)
@click.option(
    "--against", metavar="DIR", type=click.Path(path_type=Path), multiple=True, help="Another bundle, measured in turn."
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.svg", help="Draw it; with --full above all.")
@click.option("--prefill", type=click.Choice(("auto", "int4", "int8")), default="auto", help="As for edgekit serve.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the physical cores.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench_command(  # noqa: PLR0913, PLR0917 - click passes one argument for each option
    folder: Path,
    prompt_tokens: int | None,
    decode_tokens: int,
    batch: int,
    repetitions: int,
    against: tuple[Path, ...],
    plot: Path | None,
    prefill: "PrefillMode",
    threads: int | None,
    *,
    full: bool,
    as_json: bool,
) -> None:
    """Measure a bundle here: prompt and decode speed, time to first token, load time, memory and its bandwidth."""
    from device_agent.bench import table
    from device_agent.bench.plan import make_plan
    from device_agent.bench.report import reports
    from device_agent.bench.turns import check, steps, take_turns
    from edgekit.files import write_durably
    from edgekit.hardware import usable_cores

    folders = [folder, *against]
    plan = make_plan(prompt_tokens, decode_tokens, batch, full=full)
    check(folders, plan)  # before a bar is drawn
    with click.progressbar(length=steps(len(folders), repetitions), file=sys.stderr, width=32) as bar:

        def step(title: str) -> None:
            bar.label = f"{title:40}"
            bar.update(1)

        results = take_turns(
            folders, plan, threads=threads or usable_cores(), repetitions=repetitions, step=step, prefill=prefill
        )
    found = reports(results)
    if plot is not None:
        write_durably(plot, table.plot(found).encode())
    if as_json:
        first, *others = (dataclasses.asdict(each) for each in found)
        print_json({**first, "against": others})
        return
    for title, words in table.lines(found):
        click.echo(f"{click.style(f'{title:13}', bold=True)} {words}".rstrip())
    if plot is not None:
        click.echo(f"\nplot: {plot}")

"""`edgekit eval`: what a bundle lost against its source, in text and in tasks. Light to import."""

import dataclasses
from pathlib import Path

import click

from edgekit import strategies
from edgekit.cli import print_json
from edgekit.errors import InvalidRequest, UsageError
from edgekit.home import home
from export.cli import Bar

_PATH = click.Path(path_type=Path)


@click.command(
    "eval",
    epilog="""\b
Kinds of task, recognised by their fields, as JSON Lines or {"examples": [...]}:
  input, target                 BIG-Bench Hard: multiple choice or exact match
  question, choices, answer     MMLU: the letter of a choice
  question, passage, answer     BoolQ: yes or no
  ctx, endings, label           HellaSwag: the ending
  text, code, test_list         MBPP: a program that passes tests; needs --run-code

\b
Examples:
  edgekit eval my-model --reference model.gguf --text some-english.txt
  edgekit eval my-model --reference ./my-fine-tune --task boolean.json --task snarks.json --limit 50 --shots 2
  edgekit eval my-model --task boolean.json --strategy direct,step-by-step,auto""",
)
@click.argument("bundle", type=_PATH)
@click.option("--reference", type=_PATH, help="Compare with this: a source that export takes, or another bundle.")
@click.option("--text", type=_PATH, help="Measure perplexity (and KL) on this UTF-8 text.")
@click.option(
    "--tokens", type=click.IntRange(1), default=8192, show_default=True, help="Predictions of --text at most."
)
@click.option("--window", type=click.IntRange(2), default=512, show_default=True, help="Tokens that are read together.")
@click.option(
    "--count",
    type=click.Choice(("all", "second-half")),
    default="all",
    show_default=True,
    help="Positions of a window that count; llama.cpp's tool counts the second half.",
)
@click.option("--task", "tasks", type=_PATH, multiple=True, help="Ask the questions of this file; may be repeated.")
@click.option("--limit", type=click.IntRange(1), help="Questions per task at most.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which questions --limit takes.")
@click.option("--shots", type=click.IntRange(0), default=0, show_default=True, help="Solved examples before each.")
@click.option("--raw", is_flag=True, help="Ask in plain text, even if the model has a chat template.")
@click.option(
    "--strategy", "named", help="Compare these ways of reasoning, separated by commas; auto chooses one per question."
)
@click.option(
    "--reasoning-tokens", type=click.IntRange(1), help="Tokens of reasoning at most. Default: the strategy's own limit."
)
@click.option("--run-code", is_flag=True, help="Run programs that the model writes (confined, but they are strangers).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def eval_command(  # noqa: PLR0913 - a parameter per option; behind this line they are one record
    bundle: Path,
    *,
    reference: Path | None,
    text: Path | None,
    tokens: int,
    window: int,
    count: str,
    tasks: tuple[Path, ...],
    limit: int | None,
    seed: int,
    shots: int,
    raw: bool,
    named: str | None,
    reasoning_tokens: int | None,
    run_code: bool,
    as_json: bool,
) -> None:
    """Measure BUNDLE on a text or on tasks, alone or beside the model it came from."""
    from export.evaluate.job import EvalJob, evaluate  # numpy and onnxruntime take a second to import
    from export.evaluate.strategic import Way
    from export.evaluate.text import Count

    if text is None and not tasks:
        raise UsageError("Nothing to measure: give --text FILE or --task FILE.")
    if named is not None and not tasks:
        raise UsageError("--strategy compares answers to questions: give --task FILE.")
    known = strategies.load(home() / strategies.FILE_NAME)
    ways = [Way(name=name, strategies=known, most_tokens=reasoning_tokens) for name in _names(named, known)]
    job = EvalJob(
        bundle=bundle,
        reference=reference,
        text=text,
        tokens=tokens,
        window=window,
        count=Count(count),
        tasks=tasks,
        limit=limit,
        seed=seed,
        shots=shots,
        raw=raw,
        run_code=run_code,
        ways=tuple(ways),
    )
    result = evaluate(job, Bar())
    found = result.as_json()
    if as_json:
        print_json(found)
        return
    if result.text is not None:
        for name, value in dataclasses.asdict(result.text).items():
            if value is not None:
                click.echo(f"{_TITLES[name]:24} {value:,}" if isinstance(value, int) else _line(name, value))
    if result.tasks:
        click.echo("\n".join(result.task_table()))
    if result.strategies:
        click.echo("\n".join(result.strategy_table()))


def _names(named: str | None, known: strategies.Strategies) -> list[str]:
    """The strategies that are asked for, each once. Raises UsageError for one that there is not."""
    names = list(dict.fromkeys(name.strip() for name in named.split(","))) if named is not None else []
    for name in names:
        try:
            known.check(name)
        except InvalidRequest as error:
            raise UsageError(f"--strategy: {error}") from error
    return names


_TITLES = {
    "tokens": "predicted tokens",
    "perplexity": "perplexity",
    "reference_perplexity": "reference's perplexity",
    "kl": "KL(reference || bundle)",
    "same_top_token": "same top token",
}


def _line(name: str, value: float) -> str:
    shown = f"{value:.1%}" if name == "same_top_token" else f"{value:.4f} nats" if name == "kl" else f"{value:.3f}"
    return f"{_TITLES[name]:24} {shown}"

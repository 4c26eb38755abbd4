"""The device's verbs: inspect, verify, generate, chat, embed, serve, bench. Light to import."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agent.bench.cli import bench_command as bench_command  # noqa: PLC0414 - the verb's entry point names this module
from device_agent.serve_cli import serve_command as serve_command  # noqa: PLC0414 - the same
from edgekit.chat import Message
from edgekit.cli import print_json
from edgekit.errors import RequestError, UsageError

if TYPE_CHECKING:
    from device_agent.engine.records import Generation, Timings
    from device_agent.model import Model
    from edgekit.manifest import Manifest

_FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_THREADS = click.option("--threads", type=click.IntRange(min=1), help="Default: the physical cores.")
_MAX_TOKENS = click.option("--max-tokens", type=click.IntRange(min=1), help="Default: up to the context's end.")
_MAX_ANSWER_TOKENS = click.option(  # a small model that repeats itself would go on to the context's end
    "--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="The longest answer."
)
_TEMPERATURE = click.option(
    "--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True, help="0 is greedy."
)
_SEED = click.option("--seed", type=int, help="The same seed gives the same text.")


def _state() -> Path:
    """The agent's folder. To be called before anything heavy is imported.

    numpy starts OpenBLAS's threads when it is imported, which costs 75 ms of CPU time; nothing here multiplies
    matrices in numpy.
    """
    from edgekit.home import home

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return home()


@click.command("inspect", epilog="\b\nExample:\n  edgekit inspect my-model")
@_FOLDER
@_JSON
def inspect_command(folder: Path, *, as_json: bool) -> None:
    """Show what a bundle is: architecture, precision, size, licence, measured quality."""
    from edgekit.bundle import read_manifest

    manifest = read_manifest(folder)
    if as_json:
        click.echo(manifest.to_bytes().decode(), nl=False)
        return
    _print_table(_facts(manifest))


def _facts(manifest: "Manifest") -> dict[str, str]:
    """What a person wants to know of a bundle, by title."""
    arch, needs, embedding = manifest.arch, manifest.requires, manifest.embedding
    specs = sorted(set(manifest.quant.weights.values()))
    millions = arch.parameters / 1e6
    files = [f"{entry.size:>13,}  {entry.path}" for entry in manifest.files]
    if embedding is None:
        at_2k = manifest.memory_bytes(tokens=2048)
        context, memory = f"{arch.context:,} tokens", f", about {at_2k / 1e6:,.0f} MB in use at 2,048 tokens"
        if manifest.cache != "float32":
            memory += f" ({manifest.cache} cache)"
        golden = f"{len(manifest.golden)} prompts, {sum(golden.sure for golden in manifest.golden)} sure tokens"
    else:
        context, memory = f"{embedding.max_tokens:,} tokens", ""
        golden = f"{len(embedding.golden)} texts"
    facts = {
        "model": f"{manifest.name} {manifest.version}",
        "architecture": f"{arch.model_type}, {arch.layers} layers, width {arch.hidden}, {millions:,.1f} M weights",
        "context": context,
        "weights": f"{manifest.quant.precision} ({', '.join(specs)})",
        "size": f"{manifest.file_bytes / 1e6:,.1f} MB on disk{memory}",
        "source": f"{manifest.source.kind} {manifest.source.file}",
        "licence": manifest.source.licence or "not stated",
        "quality": ", ".join(f"{key} {value:g}" for key, value in manifest.quality.items()) or "not measured",
        "golden": golden,
        "needs": f"onnxruntime {needs.onnxruntime} or newer",
        "files": f"\n{'':14}".join(files),
    }
    if embedding is not None:
        length = "of length 1" if embedding.normalise else "of any length"
        facts["embedding"] = f"{embedding.dimension} values {length}, pooled by {embedding.pooling}"
    return facts


@click.command("verify", epilog="\b\nExample:\n  edgekit verify my-model && echo safe to ship")
@_FOLDER
@_JSON
def verify_command(folder: Path, *, as_json: bool) -> int:
    """Check a bundle: hashes, paths, that it loads here and gives its golden answers. Exit code 0 only if so."""
    from device_agent.check import verify

    found = verify(folder, lambda step: click.echo(f"checking {step}", err=True))
    if as_json:
        print_json({"ok": not found, "problems": [str(problem) for problem in found]})
    elif found:
        for problem in found:
            click.echo(f"{click.style('bad', fg='red', bold=True)}  {problem}")
        click.echo(f"{click.style('hint:', fg='yellow')}  {found[0].hint}", err=True)
    else:
        good = click.style("ok", fg="green", bold=True)
        click.echo(f"{good}  {folder} is whole, loads, and gives its golden answers")
    return found[0].exit_code if found else 0


@click.command(
    "generate", epilog='\b\nExample:\n  edgekit generate my-model --prompt "Once upon a time" --max-tokens 40'
)
@_FOLDER
@click.option("--prompt", required=True, help='Text to continue; "-" reads standard input.')
@_MAX_TOKENS
@_TEMPERATURE
@_SEED
@click.option("--raw", is_flag=True, help="Print the text alone: no statistics.")
@_THREADS
@_JSON
def generate_command(
    folder: Path,
    prompt: str,
    max_tokens: int | None,
    temperature: float,
    seed: int | None,
    threads: int | None,
    *,
    raw: bool,
    as_json: bool,
) -> None:
    """Continue a text as it is, without a chat template."""
    state = _state()
    from device_agent.engine.records import EngineSettings, Generation, Piece, Sampling
    from device_agent.model import Model

    text = _standard_input() if prompt == "-" else prompt
    once = EngineSettings(prefill="int4")  # unpacking weights for prompts pays from the second one on
    with Model.open(folder, threads=threads, engine=once, state=state) as model:
        ids = model.text_prompt(text)
        sampling = Sampling(temperature=temperature, seed=seed)
        pieces: list[Piece] = []
        for piece in model.submit(Generation(prompt=ids, sampling=sampling, max_tokens=max_tokens)):
            pieces.append(piece)
            if not as_json:
                click.echo(piece.text, nl=False)
    timings = next(piece.timings for piece in pieces if piece.timings is not None)
    if as_json:
        tokens = [token for piece in pieces for token in piece.tokens]
        print_json(
            {
                "text": "".join(piece.text for piece in pieces),
                "tokens": tokens,
                "finish_reason": pieces[-1].finish,
                "usage": {
                    "prompt_tokens": len(ids),
                    "completion_tokens": len(tokens),
                    "total_tokens": len(ids) + len(tokens),
                },
                "timings": _timings(timings),
            }
        )
        return
    click.echo()
    if not raw:
        click.echo(_statistics(timings), err=True)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text: {error.reason} at byte {error.start}.") from error


@click.command("chat", epilog='\b\nExample:\n  edgekit chat my-model --system "Answer in one sentence."')
@_FOLDER
@click.option("--system", help="What the assistant is told first.")
@_MAX_ANSWER_TOKENS
@_TEMPERATURE
@_SEED
@_THREADS
def chat_command(
    folder: Path, system: str | None, max_tokens: int, temperature: float, seed: int | None, threads: int | None
) -> None:
    """Talk to a model in the terminal. An empty line or Ctrl-D ends; Ctrl-C stops an answer; /new starts over."""
    state = _state()
    from device_agent.engine.records import Generation, Sampling
    from device_agent.model import Model

    first = [Message(role="system", content=system)] if system else []
    sampling = Sampling(temperature=temperature, seed=seed)
    with Model.open(folder, threads=threads, state=state) as model:
        click.echo(f"{model.manifest.name} {model.manifest.version}. An empty line ends, /new starts over.", err=True)
        messages = list(first)
        while (line := _ask()) is not None:
            if line == "/new":
                messages = list(first)
                continue
            asked = [*messages, Message(role="user", content=line)]
            try:
                prompt = model.chat_prompt(asked)
                answer = _say(model, Generation(prompt=prompt, sampling=sampling, max_tokens=max_tokens))
            except RequestError as error:
                if not sys.stdin.isatty():
                    raise
                click.echo(f"{click.style('error:', fg='red', bold=True)} {error} Say /new to start over.", err=True)
                continue
            messages = [*asked, Message(role="assistant", content=answer)]


def _ask() -> str | None:
    """A line from the person, or None when there is nothing more to say."""
    try:
        line = input(click.style("> ", fg="cyan", bold=True)) if sys.stdin.isatty() else sys.stdin.readline()
    except EOFError:
        return None
    return line.strip() or None


def _say(model: "Model", generation: "Generation") -> str:
    """Print an answer as it comes, and return it; Ctrl-C ends it early, and what was said stands."""
    answer = model.submit(generation)
    said = ""
    ended = False
    while not ended:
        try:
            for piece in answer:
                said += piece.text
                click.echo(piece.text, nl=False)
                if piece.timings is not None:
                    click.echo()
                    click.echo(click.style(_statistics(piece.timings), dim=True), err=True)
            ended = True
        except KeyboardInterrupt:
            answer.cancel()  # its last piece is on the way
    return said


@click.command("embed", epilog='\b\nExample:\n  edgekit embed my-encoder "A first text." "A second text."')
@_FOLDER
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--truncate", is_flag=True, help="Cut texts that are too long instead of refusing them.")
@_THREADS
@_JSON
def embed_command(folder: Path, texts: tuple[str, ...], threads: int | None, *, truncate: bool, as_json: bool) -> None:
    """Turn texts into vectors: a line of numbers for each. The TEXT "-" stands for the lines of standard input."""
    state = _state()
    from device_agent.model import EmbeddingModel

    given = [line for text in texts for line in (_standard_input().splitlines() if text == "-" else [text])]
    model = EmbeddingModel.open(folder, threads=threads, state=state)
    vectors = model.embed(given, truncate=truncate)
    if as_json:
        print_json(
            {
                "model": model.manifest.name,
                "dimension": vectors.shape[1],
                "embeddings": vectors.tolist(),
                "usage": {"prompt_tokens": sum(len(model.tokens(text, truncate=truncate)) for text in given)},
            }
        )
        return
    for vector in vectors:
        click.echo(" ".join(f"{value:.6f}" for value in vector))


def _print_table(rows: dict[str, str]) -> None:
    for key, value in rows.items():
        click.echo(f"{click.style(f'{key:13}', bold=True)} {value}")


def _timings(timings: "Timings") -> dict[str, float]:
    return {
        "prompt_tokens_per_s": round(timings.prompt_per_second, 2),
        "decode_tokens_per_s": round(timings.generated_per_second, 2),
        "time_to_first_token_s": round(timings.prompt_s, 4),
    }


def _statistics(timings: "Timings") -> str:
    return (
        f"[{timings.prompt_tokens} prompt tokens at {timings.prompt_per_second:,.0f}/s, "
        f"{timings.generated_tokens} tokens at {timings.generated_per_second:,.1f}/s]"
    )

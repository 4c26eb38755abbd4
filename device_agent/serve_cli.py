"""`edgekit serve`: settings from everywhere, then the agent. Light to import.

An option is a setting by another name: it says which one, and settings.py checks and explains all of them alike.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import Size, print_json
from edgekit.settings import CONFIG_FILE, Settings, read_settings, to_toml

if TYPE_CHECKING:
    from device_agent.http.services import Card

_SAID = "edgekit.settings"
"""Under which click's context keeps what the command line says."""


def _is(section: str, key: str) -> Callable[[click.Context, click.Parameter, object], None]:
    """An option's callback: its value is that of a setting."""

    def keep(context: click.Context, _: click.Parameter, value: object) -> None:
        context.meta.setdefault(_SAID, {})[section, key] = value

    return keep


@click.command("serve", epilog="\b\nExample:\n  edgekit serve my-model --port 8080")
@click.argument(
    "path", required=False, type=click.Path(path_type=Path), expose_value=False, callback=_is("models", "path")
)
@click.option("--config", type=click.Path(path_type=Path), help="Settings. Default: config.toml in EDGEKIT_HOME.")
@click.option("--print-config", is_flag=True, help="Show all settings as they are in effect, and end.")
@click.option(
    "--host", expose_value=False, callback=_is("server", "host"), help="Address to listen on. Default: 127.0.0.1."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    expose_value=False,
    callback=_is("server", "port"),
    help="0 takes any free one. Default: 8080.",
)
@click.option(
    "--active",
    metavar="NAME",
    expose_value=False,
    callback=_is("models", "active"),
    help="Who answers until another model is made active.",
)
@click.option(
    "--lazy",
    is_flag=True,
    default=None,
    expose_value=False,
    callback=_is("models", "lazy"),
    help="Load no model before somebody asks.",
)
@click.option(
    "--max-loaded-bytes",
    type=Size(),
    expose_value=False,
    callback=_is("models", "max_loaded_bytes"),
    help="Memory for all loaded models. Default: a share of what is free.",
)
@click.option(
    "--idle-unload",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    expose_value=False,
    callback=_is("models", "idle_unload_s"),
    help="Close a model that was not used for so long.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    expose_value=False,
    callback=_is("engine", "threads"),
    help="Default: the physical cores.",
)
@click.option(
    "--prefill",
    type=click.Choice(("auto", "int4", "int8")),
    expose_value=False,
    callback=_is("engine", "prefill"),
    help="Weights that read prompts: as stored, unpacked to INT8 once, or what is measured to be faster (auto).",
)
@click.option(
    "--draft",
    metavar="text|off|DIR",
    expose_value=False,
    callback=_is("engine", "draft"),
    help="Guess tokens, to verify several at once: from the text, and from a smaller bundle in DIR; or never.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 8),
    expose_value=False,
    callback=_is("engine", "slots"),
    help="Requests that run together. Default: 4, if memory allows.",
)
@click.option(
    "--prefix-cache",
    type=Size(),
    expose_value=False,
    callback=_is("engine", "prefix_bytes"),
    help="Memory for texts that may go on. Default: a tenth, at most 1 GiB.",
)
@click.option(
    "--warm",
    type=click.Path(path_type=Path),
    expose_value=False,
    callback=_is("engine", "warm"),
    help="A file with the system prompt that requests begin with.",
)
@click.option(
    "--duty",
    type=click.FloatRange(0.01, 1),
    expose_value=False,
    callback=_is("engine", "duty"),
    help="Share of time to work. Default: 1.",
)
@click.option(
    "--huge-pages",
    is_flag=True,
    default=None,
    expose_value=False,
    callback=_is("engine", "huge_pages"),
    help="Move the weights into huge pages once loaded (Linux; a few seconds).",
)
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    expose_value=False,
    callback=_is("log", "format"),
    help="Lines for people (text), or an object each.",
)
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warning", "error")),
    expose_value=False,
    callback=_is("log", "level"),
    help="With info, a line for each request. Default: warning.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def serve_command(context: click.Context, *, config: Path | None, print_config: bool, as_json: bool) -> None:
    """Serve models: an OpenAI-compatible API at /v1 and a page at /. SIGTERM or Ctrl-C ends it.

    PATH is a bundle, or a folder of bundles (default: models in EDGEKIT_HOME).
    """
    from edgekit.home import home

    # numpy starts OpenBLAS's threads when it is imported, which costs 75 ms of CPU time for nothing.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    said = context.meta.get(_SAID, {})
    debug = bool(context.find_root().params.get("debug"))

    def read() -> Settings:
        return read_settings(config or home() / CONFIG_FILE, os.environ, said, required=config is not None)

    settings = read()
    if print_config:
        click.echo(to_toml(settings), nl=False)
        return
    from device_agent import logs
    from device_agent.app import serve

    logs.set_up(settings.log.format, "debug" if debug else settings.log.level)
    serve(settings, home(), _say_as_json if as_json else _say, reread=read)


def _say_as_json(url: str, card: "Card | None") -> None:
    name, context = (None, None) if card is None else (card.id, card.manifest.context_tokens)
    print_json({"url": url, "model": name, "context": context})


def _say(url: str, card: "Card | None") -> None:
    model = "no model yet" if card is None else f"{card.id} {card.manifest.version}"
    click.echo(f"{click.style('ready', fg='green', bold=True)}  {model}")
    click.echo(f"       page     {url}/")
    click.echo(f"       OpenAI   {url}/v1")
    click.echo("       Ctrl-C stops")

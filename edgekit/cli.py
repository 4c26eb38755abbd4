"""`edgekit VERB`: finds verbs by entry point, turns errors into one line and an exit code.

Each verb is a click command registered in the entry point group `edgekit.verbs`, in a module that
is light to import; what a verb needs is imported when it runs, so that a device without the build
side still lists and explains every verb.
"""

import importlib.metadata
import json
import logging
import os
import sys
from typing import Any, NoReturn

import click

from edgekit import __version__
from edgekit.errors import EdgekitError, MissingExtra, SystemRefused
from edgekit.settings import parse_size

EXTRA_OF = dict.fromkeys(
    ("export", "families", "eval", "repo", "publish", "channel", "rollout", "bundle"),
    "export",
)
"""Which extra brings what a verb imports; verbs that are not listed need only the base install."""

EXIT_CODES = """
\b
Exit codes:
  0 done    1 failed    2 wrong usage    3 a part is not installed    4 a task file is wrong
  5 the disk, or the system otherwise, refuses
  10-18 the source model    20-26 the export    30-35 the bundle
  40-49 the request         50-54 the agent     60-76 an update
  130 Ctrl-C
"""


class Verbs(click.Group):
    """Loads a verb from its entry point when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs."""
        return sorted(entry.name for entry in _entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called `cmd_name`, or None."""
        for entry in _entry_points():
            if entry.name == cmd_name:
                command: click.Command = entry.load()
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest verb named when one is misspelt."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error
            raise


def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group="edgekit.verbs")


@click.command(
    cls=Verbs,
    epilog=EXIT_CODES,
    help="""Small language models on laptops and ARM boards: export once, run offline.

    \b
    Examples:
      edgekit export model.gguf -o my-model      make a bundle (build machine)
      edgekit verify my-model                    check it (anywhere)
      edgekit chat my-model                      talk to it here
      edgekit serve my-model                     OpenAI API and web page on localhost
    """,
)
@click.version_option(__version__, prog_name="edgekit")
@click.option("--debug", is_flag=True, help="Show a traceback for every error, and debug logs.")
def program(*, debug: bool) -> None:
    """Entry of every verb: logging is set up here and nowhere else."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if not debug:  # it warns whenever a request waits a moment for a thread; a full queue is answered with 503
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        logging.getLogger("urllib3.connectionpool").setLevel(
            logging.ERROR
        )  # each attempt; who asked tells the last one


def print_json(value: object) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a verb and exit: with its code, and one line on standard error if it failed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # A person may put --debug anywhere; click wants group options before the verb.
    arguments = (["--debug"] if debug else []) + [word for word in arguments if word != "--debug"]
    verb = next((word for word in arguments if not word.startswith("-")), "")
    as_json = "--json" in arguments
    try:
        result: Any = program.main(args=arguments, prog_name="edgekit", standalone_mode=False)
    except BrokenPipeError:  # whoever read the output wanted no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is written at exit
        sys.exit(1)
    except (EdgekitError, ModuleNotFoundError, OSError) as error:
        told = _told(error, verb)
        if debug or told is None:
            raise
        _fail(told, as_json=as_json)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"{_end_of_bar()}\nStopped.", err=True)
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else 0)


def _told(error: EdgekitError | ModuleNotFoundError | OSError, verb: str) -> EdgekitError | None:
    """As a sentence for people; None: it is a bug of ours."""
    if isinstance(error, EdgekitError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return MissingExtra(verb, str(error.name), EXTRA_OF[verb]) if verb in EXTRA_OF else None
    said = error.strerror or str(error) or type(error).__name__
    return SystemRefused(said if error.filename is None else f"{said}: {error.filename}")


def _end_of_bar() -> str:
    """On a terminal, what takes away a bar that would stand before the sentence, and shows the cursor that it hid."""
    return "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""


def _fail(error: EdgekitError, *, as_json: bool) -> NoReturn:
    """One line, a hint if there is one, and the error's exit code."""
    click.echo(f"{_end_of_bar()}{click.style('error:', fg='red', bold=True)} {error}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='yellow')}  {error.hint}", err=True)
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": str(error), "hint": error.hint}})
    sys.exit(error.exit_code)


class Size(click.ParamType[int]):
    """A number of bytes: 91700000, 91.7MB, 1.5G."""

    name = "SIZE"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As click calls it."""
        found = parse_size(str(value))
        if found is None:
            self.fail(f"{value!r} is not a size such as 92MB or 1.5GB", param, ctx)
        return found

"""What the verbs of publishing share: options, passphrases, tables, and the machine's clock. Light to import."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.errors import UsageError

if TYPE_CHECKING:
    from export.publish.keys import Keyring
    from export.publish.repository import Published, Repository

_GIVEN = "EDGEKIT_KEY_PASSPHRASE"

Command = TypeVar("Command", bound=Callable[..., Any])


def repository_argument(command: Command) -> Command:
    """The folder of the repository, for the verbs of `edgekit repo`."""
    return click.argument("repo", type=click.Path(path_type=Path))(command)


def repository_option(command: Command) -> Command:
    """The same, for verbs whose argument is something else."""
    return click.option(
        "--repo", type=click.Path(path_type=Path), required=True, help="Folder of the repository (edgekit repo init)."
    )(command)


def keys_option(command: Command) -> Command:
    """Folders of keys."""
    return click.option(
        "--keys",
        "folders",
        type=click.Path(path_type=Path),
        multiple=True,
        help="Folder of signing keys, may be said several times. Default: REPO.keys, beside the repository.",
    )(command)


def json_option(command: Command) -> Command:
    """One object on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")(command)


def key_folders(repo: Path, folders: Sequence[Path]) -> list[Path]:
    """Where keys are; never inside of what is published. Raises UsageError."""
    where = repo.resolve()
    found = [folder.resolve() for folder in folders] or [where.with_name(f"{where.name}.keys")]
    for folder in found:
        if folder.is_relative_to(where):
            raise UsageError(f"{folder} is inside of the repository, where everybody can read it.")
    return found


def keyring_of(folders: Sequence[Path], *more: str | None) -> "Keyring":
    """The keys in folders; passphrases come from the environment, from `more`, and from a person at a terminal.

    Raises KeyUnavailable.
    """
    from export.publish.keys import Keyring

    known = [secret for secret in (os.environ.get(_GIVEN), *more) if secret]
    return Keyring.open(folders, _ask, known)


def opened(repo: Path, folders: Sequence[Path]) -> "tuple[Repository, Keyring]":
    """The repository and the keys at hand. Raises PublishError, KeyUnavailable or UsageError."""
    from export.publish.repository import Repository

    return Repository.open(repo), keyring_of(key_folders(repo, folders))


def new_passphrase() -> str | None:
    """For keys that are to be made: from the environment, or asked for twice. None: none was given."""
    if given := os.environ.get(_GIVEN):
        return given
    return _ask("passphrase of the new keys (empty: none)", again="again")


def _ask(what: str, *, again: str | None = None) -> str | None:
    """A secret from a person at a terminal; None if there is nobody."""
    if not sys.stdin.isatty():
        return None
    said = click.prompt(
        what, hide_input=True, default="", show_default=False, confirmation_prompt=again or False, err=True
    )
    return str(said) or None


def clock() -> float:
    """Unix seconds."""
    return time.time()


def warn(sentence: str) -> None:
    """On standard error, so that it stands out."""
    click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {sentence}", err=True)


def done(sentence: str) -> None:
    """The last line of what went well."""
    click.echo(f"{click.style('ok', fg='green', bold=True)}  {sentence}")


def say_due(published: "Published") -> None:
    """Warn of roles whose signatures end soon and whose keys were not at hand."""
    for role in published.due:
        warn(f"the signatures of {role} end soon: run `edgekit repo refresh` with its key")


def megabytes(count: int) -> str:
    """For people: 850 bytes, 3.1 kB, 105.8 MB."""
    if count < 1_000:
        return f"{count} bytes"
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first one to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )

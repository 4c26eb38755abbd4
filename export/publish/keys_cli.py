"""`edgekit repo keys`: whose signatures count. Light to import."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from edgekit.cli import print_json
from edgekit.errors import KeyUnavailable, UsageError
from export.publish.terminal import (
    clock,
    done,
    json_option,
    key_folders,
    keyring_of,
    keys_option,
    new_passphrase,
    opened,
    repository_argument,
    say_due,
    table,
    warn,
)

if TYPE_CHECKING:
    from securesystemslib.signer import Key

    from export.publish.keys import Holder, Keyring
    from export.publish.repository import Published, Repository
    from export.publish.rotation import Edit

ROLES = ("root", "releases", "rollout", "timestamp")


def request_option(command: Any) -> Any:  # noqa: ANN401 - a decorator
    """Where a root goes that lacks signatures."""
    return click.option(
        "--request",
        type=click.Path(path_type=Path),
        help="File for a root that lacks signatures, which goes round. Default: beside the repository.",
    )(command)


@click.group("keys")
def keys_command() -> None:
    """List, rotate, add and remove the keys that sign the repository.

    Each change makes a new root, signed by as many of the old root's keys as its threshold says, and of the new one's.
    Say --keys for every stick that is plugged in; if that is not enough, the root is written to a file which the
    other holders sign with `edgekit repo keys sign`.
    """


@keys_command.command("list")
@repository_argument
@keys_option
@json_option
def list_command(repo: Path, folders: tuple[Path, ...], *, as_json: bool) -> None:
    """List the keys of each role, and where they are."""
    from export.publish import metadata
    from export.publish.keys import shown

    repository, keyring = opened(repo, folders)
    state = repository.state()
    found = []
    for name in metadata.ROLES:
        who = metadata.authority(name, state.root.signed, state.targets.signed)
        found += [
            {
                "role": name,
                "keyid": key.keyid,
                "scheme": key.scheme,
                "threshold": who.threshold,
                "where": keyring.where(key.keyid),
            }
            for key in who.keys
        ]
    if as_json:
        print_json({"keys": found})
        return
    rows = [[str(key["role"]), shown(str(key["keyid"])), str(key["where"] or "not at hand")] for key in found]
    click.echo(table([["role", "key", "where"], *rows]))


@keys_command.command("rotate")
@repository_argument
@click.argument("role", type=click.Choice(ROLES))
@keys_option
@click.option("--old", help="Beginning of the id of the key that goes. Needed if the role has several.")
@click.option("--new", "new_id", help="Beginning of the id of a key that is in a folder already. Default: make one.")
@request_option
@json_option
def rotate_command(
    repo: Path,
    role: str,
    folders: tuple[Path, ...],
    old: str | None,
    new_id: str | None,
    request: Path | None,
    *,
    as_json: bool,
) -> None:
    """Replace a key of ROLE by a new one.

    After a theft, or once in a while. Devices follow by themselves.
    """
    from export.publish import rotation

    holder = cast("Holder", role)
    repository, keyring = opened(repo, folders)
    with repository.writing():
        gone = _one(_keyids(repository, holder), old, f"key of {role}: say --old")
        key, keyring = _new_key(repo, folders, keyring, holder, new_id)
        if holder == "rollout":
            published = rotation.rotate_rollout(repository, [key], keyring, now=clock())
            _installed(published, f"{role} is signed by {key.keyid[:12]} now", as_json=as_json)
            return
        edit = rotation.Edit(holder=holder, add=(key,), remove=frozenset({gone}))
        _changed(repository, keyring, edit, request, as_json=as_json)


@keys_command.command("add-root")
@repository_argument
@keys_option
@click.option("--new", "new_id", help="Beginning of the id of a key that is in a folder already. Default: make one.")
@click.option("--threshold", type=click.IntRange(1, 20), help="How many root keys must sign from now on.")
@request_option
@json_option
def add_root_command(
    repo: Path,
    folders: tuple[Path, ...],
    new_id: str | None,
    threshold: int | None,
    request: Path | None,
    *,
    as_json: bool,
) -> None:
    """Add a root key."""
    from export.publish.rotation import Edit

    repository, keyring = opened(repo, folders)
    with repository.writing():
        key, keyring = _new_key(repo, folders, keyring, "root", new_id)
        _changed(repository, keyring, Edit(add=(key,), threshold=threshold), request, as_json=as_json)


@keys_command.command("remove-root")
@repository_argument
@click.argument("keyid")
@keys_option
@click.option("--threshold", type=click.IntRange(1, 20), help="How many root keys must sign from now on.")
@request_option
@json_option
def remove_root_command(
    repo: Path, keyid: str, folders: tuple[Path, ...], threshold: int | None, request: Path | None, *, as_json: bool
) -> None:
    """Remove the root key whose id begins with KEYID."""
    from export.publish.rotation import Edit

    repository, keyring = opened(repo, folders)
    with repository.writing():
        gone = _one(_keyids(repository, "root"), keyid, f"root key whose id begins with {keyid!r}")
        edit = Edit(remove=frozenset({gone}), threshold=threshold)
        _changed(repository, keyring, edit, request, as_json=as_json)


@keys_command.command("threshold")
@repository_argument
@click.argument("count", type=click.IntRange(1, 20))
@keys_option
@request_option
@json_option
def threshold_command(
    repo: Path, count: int, folders: tuple[Path, ...], request: Path | None, *, as_json: bool
) -> None:
    """Ask for COUNT signatures of root keys from now on."""
    from export.publish.rotation import Edit

    repository, keyring = opened(repo, folders)
    with repository.writing():
        _changed(repository, keyring, Edit(threshold=count), request, as_json=as_json)


@keys_command.command("sign")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--keys", "folders", type=click.Path(path_type=Path), multiple=True, required=True, help="Folder of keys."
)
@click.option("--repo", type=click.Path(path_type=Path), help="Publish it here, if that was the last signature.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def sign_command(file: Path, folders: tuple[Path, ...], repo: Path | None, *, yes: bool, as_json: bool) -> None:
    """Sign a root that goes round.

    It is published once it has its signatures and --repo is given. Publishing also needs the keys of `timestamp`, and
    of `releases` where those changed: say --keys for them too.
    """
    sign_file(file, folders, repo=repo, yes=yes, as_json=as_json)


def sign_file(file: Path, folders: Sequence[Path], *, repo: Path | None, yes: bool, as_json: bool) -> None:
    """Show what a request says, sign it, write it back. Raises UsageError, KeyUnavailable or PublishError."""
    from edgekit.files import write_durably
    from export.publish import requests

    request = requests.read(file)
    keyring = keyring_of([*folders, *(key_folders(repo, ()) if repo else ())])
    for line in requests.said(request):
        click.echo(line, err=True)
    if not yes and not click.confirm("Sign this?", err=True):
        raise click.Abort
    signed, lacking = requests.sign(request, keyring)
    if signed == request and lacking:
        raise KeyUnavailable(f"none of the keys that {request.role} may be signed with is in {folders[0]}")
    write_durably(file, signed.to_bytes())
    if lacking or repo is None or request.role != "root":
        if as_json:
            print_json({"request": str(file), "role": request.role, "lacking": lacking, "published": False})
        else:
            done(f"{file} is signed; it lacks {lacking} more" if lacking else f"{file} has its signatures")
        return
    _install(repo, file, keyring, as_json=as_json)


def _install(repo: Path, file: Path, keyring: "Keyring", *, as_json: bool) -> None:
    from export.publish import requests, rotation
    from export.publish.repository import Repository

    root = requests.root_of(requests.read(file))
    published = rotation.install(Repository.open(repo), root, keyring, now=clock())
    _installed(published, f"root {root.signed.version} is published", as_json=as_json)


def _changed(
    repository: "Repository", keyring: "Keyring", edit: "Edit", request: Path | None, *, as_json: bool
) -> None:
    """Sign and publish a new root, or write it to a file if signatures are lacking."""
    from edgekit.files import write_durably
    from export.publish import requests, rotation

    state = repository.state()
    root = rotation.proposed(state, edit, now=clock())
    lacking = rotation.sign_root(state.root.signed, root, keyring)
    if not lacking:
        published = rotation.install(repository, root, keyring, now=clock())
        _installed(published, f"root {root.signed.version} is published", as_json=as_json)
        return
    where = repository.folder.resolve()
    file = request or where.with_name(f"{where.name}.root-{root.signed.version}.json")
    write_durably(file, requests.for_root(state, root).to_bytes())
    if as_json:
        print_json({"request": str(file), "role": "root", "lacking": lacking, "published": False})
        return
    warn(f"nothing has changed yet: root {root.signed.version} lacks {lacking} signatures")
    click.echo(f"    the next holder:  edgekit repo keys sign {file} --keys FOLDER")
    click.echo(f"    the last one:     edgekit repo keys sign {file} --keys FOLDER --repo {repository.folder}")


def _installed(published: "Published", sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"published": True, "signed": list(published.signed), "due": list(published.due)})
        return
    done(sentence)
    say_due(published)


def _keyids(repository: "Repository", holder: "Holder") -> tuple[str, ...]:
    from export.publish import metadata
    from export.publish.keys import SIGNS

    state = repository.state()
    return tuple(
        key.keyid for key in metadata.authority(SIGNS[holder][0], state.root.signed, state.targets.signed).keys
    )


def _new_key(
    repo: Path, folders: Sequence[Path], keyring: "Keyring", holder: "Holder", beginning: str | None
) -> "tuple[Key, Keyring]":
    """A key for `holder`, made or found, and a keyring that has it too."""
    from export.publish.keys import generate

    if beginning is not None:
        found = {key.keyid: key for key in keyring.keys(holder)}
        return found[_one(tuple(found), beginning, f"key of {holder} in these folders")], keyring
    secret = new_passphrase()
    where = key_folders(repo, folders)
    key = generate(where[0], holder, secret)
    if not secret:
        warn(f"the new key in {where[0]} is not encrypted: whoever can read it can sign")
    return key, keyring_of(where, secret)


def _one(keyids: Sequence[str], beginning: str | None, what: str) -> str:
    found = [keyid for keyid in keyids if keyid.startswith(beginning or "")]
    if not found:
        raise UsageError(f"there is no {what}.")
    if len(found) > 1:
        raise UsageError(f"there are {len(found)} candidates for the {what}.")
    return found[0]

"""`edgekit repo`: a repository from its first day on. Light to import."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import print_json
from edgekit.errors import KeyUnavailable, PublishError, UsageError
from export.cli import Bar
from export.publish.keys_cli import keys_command, sign_file
from export.publish.push_cli import push_command
from export.publish.terminal import (
    clock,
    done,
    json_option,
    key_folders,
    keyring_of,
    keys_option,
    megabytes,
    new_passphrase,
    opened,
    repository_argument,
    say_due,
    table,
    warn,
)

if TYPE_CHECKING:
    from edgekit.release.channel import Channel
    from export.publish.keys import Keyring
    from export.publish.repository import Published, Repository

_DAY_S = 86_400


@click.group("repo")
def repo_command() -> None:
    """Make and look after a repository: plain files that any web server, registry or stick can carry."""


repo_command.add_command(keys_command)
repo_command.add_command(push_command)


@repo_command.command(
    "init",
    epilog="""\b
Examples:
  edgekit repo init /srv/models
  edgekit repo init /srv/models --root-keys 3 --root-threshold 2""",
)
@repository_argument
@keys_option
@click.option(
    "--root-keys", type=click.IntRange(1, 20), default=1, show_default=True, help="Keys that say which count."
)
@click.option("--root-threshold", type=click.IntRange(1, 20), help="How many of them must sign. Default: all but one.")
@click.option("--passphrase/--no-passphrase", default=True, help="Whether to ask for one at a terminal.")
@json_option
def init_command(
    repo: Path,
    folders: tuple[Path, ...],
    root_keys: int,
    root_threshold: int | None,
    *,
    passphrase: bool,
    as_json: bool,
) -> None:
    """Make an empty repository, and its keys.

    The passphrase of the keys is read from EDGEKIT_KEY_PASSPHRASE, or asked for. Keys that are in the folder of keys
    already are taken.
    """
    from export.publish.keys import HOLDERS, generate
    from export.publish.repository import Repository

    where = key_folders(repo, folders)
    threshold = root_threshold or max(1, root_keys - 1)
    if threshold > root_keys:
        raise UsageError(f"{threshold} of {root_keys} root keys cannot be asked for.")
    if repo.exists() and (not repo.is_dir() or any(repo.iterdir())):
        raise PublishError(f"{repo} exists and is not empty")
    found = keyring_of(where)
    secret = new_passphrase() if passphrase else None
    for holder in HOLDERS:
        for _ in range((root_keys if holder == "root" else 1) - len(found.keys(holder))):
            generate(where[0], holder, secret)
    keyring = keyring_of(where, secret)
    keys = {holder: keyring.keys(holder) for holder in HOLDERS}
    repo.parent.mkdir(parents=True, exist_ok=True)
    Repository.init(repo, keys, keyring, root_threshold=threshold, now=clock())
    if as_json:
        print_json(
            {
                "repository": str(repo),
                "keys": [str(folder) for folder in where],
                "root_keys": len(keys["root"]),
                "root_threshold": threshold,
                "encrypted": bool(secret),
            }
        )
    else:
        done(f"{repo} is a repository; its keys are in {where[0]}")
        click.echo(f"    next: edgekit publish BUNDLE --repo {repo} --channel stable")
    _warn_of_keys(where[0], len(keys["root"]), encrypted=bool(secret))


def _warn_of_keys(folder: Path, root_keys: int, *, encrypted: bool) -> None:
    if not encrypted:
        warn(f"the keys in {folder} are not encrypted: whoever can read them can sign. Set EDGEKIT_KEY_PASSPHRASE")
    if root_keys == 1:
        warn("there is one root key: if it is lost or stolen, every device has to be enrolled again (--root-keys 3)")
    warn(f"move the root keys out of {folder}, to sticks in different drawers; say --keys for each when needed")


@repo_command.command("refresh")
@repository_argument
@keys_option
@json_option
def refresh_command(repo: Path, folders: tuple[Path, ...], *, as_json: bool) -> None:
    """Sign anew what ends soon (from a timer).

    Once a day will do: it says that nothing has changed. Devices install nothing from a repository that has been
    silent for 30 days; what they run, they run on. Where they look in a registry, `edgekit repo push` comes after it.
    """
    from export.publish.repository import Change

    repository, keyring = opened(repo, folders)
    with repository.writing():
        published = repository.publish(Change(), keyring, now=clock())
        published = _renewed_root(repository, keyring, published)
    if as_json:
        print_json({"signed": list(published.signed), "due": list(published.due)})
    else:
        done(f"signed anew: {', '.join(published.signed)}")
    state = repository.state()
    over = [role for role in published.due if state.role(role).signed.expires.timestamp() < clock()]
    if over:
        raise KeyUnavailable(f"the signatures of {', '.join(over)} have ended, and devices install nothing until then")
    say_due(published)


def _renewed_root(repository: "Repository", keyring: "Keyring", published: "Published") -> "Published":
    """Root, if it ends soon and enough of its keys are at hand."""
    from export.publish.repository import Published
    from export.publish.rotation import Edit, install, proposed, sign_root

    state = repository.state()
    if "root" not in published.due:
        return published
    root = proposed(state, Edit(), now=clock())
    try:
        lacking = sign_root(state.root.signed, root, keyring)
    except KeyUnavailable:
        return published
    if lacking:
        return published
    after = install(repository, root, keyring, now=clock())
    return Published(signed=("root", *published.signed), due=after.due)


@repo_command.command("status")
@repository_argument
@json_option
def status_command(repo: Path, *, as_json: bool) -> None:
    """Show roles, releases, channels and sizes."""
    from export.publish.pruning import usage
    from export.publish.repository import Repository

    repository = Repository.open(repo)
    roles, used = _roles(repository), usage(repository)
    releases, channels = repository.releases(), repository.channels()
    if as_json:
        print_json(
            {
                "repository": str(repo),
                "roles": roles,
                "releases": [
                    {"id": one.id, "kind": one.kind, "sequence": one.sequence, "bytes": one.file_bytes}
                    for one in releases.values()
                ],
                "floors": _floors(repository),
                "channels": {name: _offer(channel) for name, channel in channels.items()},
                "deltas": [[delta.base, delta.release] for delta in repository.deltas()],
                "packs": used.packs,
                "pack_bytes": used.pack_bytes,
                "unneeded_files": len(used.unneeded),
                "unneeded_bytes": used.unneeded_bytes,
            }
        )
        return
    rows = [["role", "version", "ends", "days left", "keys"]]
    rows += [
        [role["role"], str(role["version"]), role["expires"][:10], str(role["days_left"]), _needed(role)]
        for role in roles
    ]
    click.echo(table(rows))
    click.echo(f"\n{len(releases)} releases, {used.packs} packs of {megabytes(used.pack_bytes)}")
    for one in releases.values():
        click.echo(f"    {one.sequence:>4}  {one.id}  {one.kind}, {megabytes(one.file_bytes)}")
    for model, floor in _floors(repository).items():
        click.echo(f"    floor of {model}: {floor}")
    for name, channel in channels.items():
        click.echo(f"channel {click.style(name, bold=True)}: {_offer(channel)}")
    if used.unneeded:
        click.echo(f"{len(used.unneeded)} files ({megabytes(used.unneeded_bytes)}) are not needed: edgekit repo prune")
    for role in roles:
        if role["due"]:
            warn(f"the signatures of {role['role']} end soon, or do not count: edgekit repo refresh, with its key")


def _roles(repository: "Repository") -> list[dict[str, Any]]:
    from export.publish import metadata
    from export.publish.keys import shown

    state, now = repository.state(), clock()
    found = []
    for name in metadata.ROLES:
        who = metadata.authority(name, state.root.signed, state.targets.signed)
        signed = state.role(name).signed
        found.append(
            {
                "role": name,
                "version": signed.version,
                "expires": signed.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "days_left": int((signed.expires.timestamp() - now) // _DAY_S),
                "due": metadata.is_due(state, name, now),
                "threshold": who.threshold,
                "keys": [shown(key.keyid) for key in who.keys],
            }
        )
    return found


def _needed(role: dict[str, Any]) -> str:
    return f"{role['threshold']} of {len(role['keys'])}"


def _floors(repository: "Repository") -> dict[str, int]:
    from export.publish import metadata

    return metadata.floors(repository.state())


def _offer(channel: "Channel") -> str:
    from edgekit.release.channel import percent_at

    if channel.abort_to is not None:
        return f"aborted, back to {channel.abort_to}"
    share = percent_at(channel.ramp, clock())
    return f"{channel.release}, {share:g} %{', paused' if channel.pause else ''}"


@repo_command.command("floor")
@repository_argument
@click.argument("model")
@click.argument("release")
@keys_option
@json_option
def floor_command(repo: Path, model: str, release: str, folders: tuple[Path, ...], *, as_json: bool) -> None:
    """Never again install a MODEL older than RELEASE.

    For a release with a hole in it: whoever stole the keys of this machine could offer it again. Signed by `releases`.
    """
    from export.publish.repository import Change
    from export.publish.retiring import forget_below

    repository, keyring = opened(repo, folders)
    with repository.writing():
        found = repository.releases().get(release)
        if found is None or found.name != model:
            raise PublishError(f"{release} is no release of {model} that is listed")
        floors = {model: found.sequence}
        channels = forget_below(repository.channels(), repository.releases(), floors)
        published = repository.publish(Change(floors=floors, channels=channels), keyring, now=clock())
    if as_json:
        print_json({"floors": _floors(repository), "signed": list(published.signed)})
        return
    done(f"the floor of {model} is {found.sequence}: {release}")


@repo_command.command("withdraw")
@repository_argument
@click.argument("release")
@keys_option
@json_option
def withdraw_command(repo: Path, release: str, folders: tuple[Path, ...], *, as_json: bool) -> None:
    """List RELEASE no longer.

    No device installs it any more, and its id is never given again. Signed by `releases`.
    """
    from export.publish.pruning import deltas_of
    from export.publish.repository import Change
    from export.publish.retiring import forget

    repository, keyring = opened(repo, folders)
    with repository.writing():
        change = Change(
            withdraw=frozenset({release}),
            channels=forget(repository.channels(), release),
            drop=deltas_of(repository, release),
        )
        published = repository.publish(change, keyring, now=clock())
    if as_json:
        print_json({"withdrawn": release, "signed": list(published.signed)})
        return
    done(f"{release} is no longer listed; `edgekit repo prune` deletes what only it needed")


@repo_command.command("prune")
@repository_argument
@keys_option
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@json_option
def prune_command(repo: Path, folders: tuple[Path, ...], *, dry_run: bool, as_json: bool) -> None:
    """Delete what is no longer needed.

    That is packs that no listed release needs, old metadata, and deltas to what no channel offers any more.
    """
    from export.publish import pruning
    from export.publish.repository import Change

    repository, keyring = opened(repo, folders)
    with repository.writing():
        idle = pruning.idle_deltas(repository)
        if idle and not dry_run:
            repository.publish(Change(drop=idle), keyring, now=clock())
        found = pruning.usage(repository) if dry_run else pruning.prune(repository)
    if as_json:
        print_json(
            {
                "deleted": not dry_run,
                "files": len(found.unneeded),
                "bytes": found.unneeded_bytes,
                "deltas": sorted(idle),
            }
        )
        return
    what = f"{len(found.unneeded)} files ({megabytes(found.unneeded_bytes)}) and {len(idle)} deltas"
    done(f"{what} {'would be' if dry_run else 'are'} deleted")


@repo_command.command("verify")
@repository_argument
@click.option("--url", help="Look at it from here, as devices do. Default: the folder.")
@click.option("--sizes-only", is_flag=True, help="Do not read the packs.")
@json_option
def verify_command(repo: Path, url: str | None, *, sizes_only: bool, as_json: bool) -> None:
    """Look at everything as a device would.

    At signatures and dates, every target, every pack; from the folder, or from where devices fetch it.
    """
    import dataclasses

    from export.publish.repository import Repository
    from export.publish.verify import place_of, shows

    bar = Bar()
    bar.stage(f"reading {url or repo}")
    root = Repository.open(repo).root(1)
    read = () if sizes_only else None
    found = shows(place_of(url or str(repo)), root, repo, now=clock(), tell=bar.advance, read=read)
    if as_json:
        print_json({"ok": True} | dataclasses.asdict(found))
        return
    done(
        f"{found.place}: {found.releases} releases, {found.channels} channels, {found.deltas} deltas,"
        f" {found.packs} packs of {megabytes(found.pack_bytes)}"
    )
    if not found.ranges:
        warn(f"{found.place} gives whole files only: devices cannot resume within a pack, or fetch parts of one")


@repo_command.command("provision")
@repository_argument
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--url", "urls", multiple=True, help="Where devices look, the best mirror first: a URL, or a whole path.")
@click.option("--channel", "channels", multiple=True, default=("stable",), show_default=True)
@click.option("--label", "labels", multiple=True, metavar="LABEL=VALUE", help="What to call the device, for rollouts.")
@click.option("--report", help="Where devices send reports: a URL (HTTP PUT) or a folder.")
@json_option
def provision_command(
    repo: Path,
    out: Path,
    urls: tuple[str, ...],
    channels: tuple[str, ...],
    labels: tuple[str, ...],
    report: str | None,
    *,
    as_json: bool,
) -> None:
    """Write the file that enrols devices.

    It is what a device is told before it trusts anything: `edgekit enrol FILE` reads it there.
    """
    from edgekit.files import write_durably
    from edgekit.release.provisioning import FORMAT, Provisioning, check_place, parse
    from export.publish.repository import Repository

    for url in urls:
        check_place(url)
    pairs = [label.partition("=") for label in labels]
    if wrong := next((label for label, _, value in pairs if not label or not value), None):
        raise UsageError(f"{wrong!r} is not a label such as site=lyon.")
    repository = Repository.open(repo)
    told = Provisioning(
        format=FORMAT,
        root=repository.root().decode(),
        floors=_floors(repository),
        repositories=urls,
        channels=channels,
        labels={label: value for label, _, value in pairs},
        report=report,
    )
    parse(told.to_bytes(), path=str(out))
    write_durably(out, told.to_bytes())
    if as_json:
        print_json({"file": str(out), "repositories": list(urls), "channels": list(channels), "floors": told.floors})
        return
    done(f"{out}: on each device, `edgekit enrol {out.name}`")
    if not urls:
        warn("it names no --url: say on the device where the repository is, with `edgekit sync --repo`")


@repo_command.command("sign")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--keys", "folders", type=click.Path(path_type=Path), multiple=True, required=True, help="Folder of keys."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def sign_command(file: Path, folders: tuple[Path, ...], *, yes: bool, as_json: bool) -> None:
    """Sign a request where the key is.

    FILE is what `edgekit publish --unsigned` wrote; it has the signature then.
    """
    sign_file(file, folders, repo=None, yes=yes, as_json=as_json)

"""`edgekit channel`: who gets what now. Light to import."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgekit.cli import print_json
from edgekit.errors import UsageError
from export.publish.terminal import clock, done, json_option, keys_option, opened, repository_option, say_due

if TYPE_CHECKING:
    from edgekit.release.channel import Channel


@click.group("channel")
def channel_command() -> None:
    """Say which release is for which devices."""


@channel_command.command(
    "set",
    epilog="""\b
Examples:
  edgekit channel set stable --repo /srv/models --release tiny-2 --percent 5
  edgekit channel set stable --repo /srv/models --percent 50        the same devices, and more
  edgekit channel set stable --repo /srv/models --pause             nobody else begins
  edgekit channel set stable --repo /srv/models --abort-to tiny-1   everybody goes back
  edgekit channel set lyon --repo /srv/models --release tiny-2 --allow site=lyon""",
)
@click.argument("name", metavar="CHANNEL")
@repository_option
@keys_option
@click.option("--release", help="What it offers.")
@click.option("--percent", type=click.FloatRange(0, 100), help="Share of devices that are offered it now.")
@click.option("--ramp", metavar="DAY:PERCENT,...", help="Shares from certain days on (UTC).")
@click.option("--pause/--resume", default=None, help="Nobody begins anything new; or on again, also after an abort.")
@click.option("--abort-to", metavar="RELEASE", help="Everybody goes to this release, which may be an older one.")
@click.option("--allow", multiple=True, metavar="LABEL=VALUE", help="Only for devices with this label ('none': any).")
@click.option("--deny", multiple=True, metavar="LABEL=VALUE", help="Not for devices with this label ('none': any).")
@click.option(
    "--freshness", type=click.Choice(("strict", "warn")), help="warn: install from metadata that is out of date (USB)."
)
@click.option("--note", help="A sentence for people.")
@click.option("--new-salt", is_flag=True, help="Let other devices go first.")
@click.option("--forget-previous", is_flag=True, help="Who has nothing yet waits for its turn.")
@json_option
def set_command(  # noqa: PLR0913, PLR0917 - click passes one argument for each option
    name: str,
    repo: Path,
    folders: tuple[Path, ...],
    release: str | None,
    percent: float | None,
    ramp: str | None,
    abort_to: str | None,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    freshness: Any,  # noqa: ANN401 - click checks the choice
    note: str | None,
    *,
    pause: bool | None,
    new_salt: bool,
    forget_previous: bool,
    as_json: bool,
) -> None:
    """Change CHANNEL, or make it: what is not said stays as it is.

    Where devices look in a registry, `edgekit repo push` comes after it.
    """
    from export.publish import channels
    from export.publish.repository import Change

    wish = channels.Wish(
        release=release,
        ramp=channels.steps(percent, ramp),
        pause=pause,
        abort_to=abort_to,
        allow=_labels(allow),
        deny=_labels(deny),
        freshness=freshness,
        note=note,
        new_salt=new_salt,
        forget_previous=forget_previous,
    )
    if wish == channels.Wish():
        raise UsageError("say what is to change: --release, --percent, --ramp, --pause, --abort-to ...")
    channels.check_name(name)
    repository, keyring = opened(repo, folders)
    with repository.writing():
        old = repository.channels().get(name)
        new = channels.changed(name, old, wish, now=clock(), salt=channels.new_salt())
        published = repository.publish(Change(channels=(new,)), keyring, now=clock())
    if as_json:
        print_json({"channel": msgspec.to_builtins(new), "signed": list(published.signed), "due": list(published.due)})
        return
    done(f"channel {name}, version {new.version}")
    _tell(new)
    say_due(published)


@channel_command.command("show")
@click.argument("name", metavar="[CHANNEL]", required=False)
@repository_option
@json_option
def show_command(name: str | None, repo: Path, *, as_json: bool) -> None:
    """Show CHANNEL, or all of them."""
    from export.publish.repository import Repository

    channels = Repository.open(repo).channels()
    if name is not None and name not in channels:
        raise UsageError(f"there is no channel {name}; there are: {', '.join(channels) or 'none'}.")
    found = [channels[name]] if name is not None else list(channels.values())
    if as_json:
        print_json({"channels": [msgspec.to_builtins(channel) for channel in found]})
        return
    for channel in found:
        click.echo(f"{click.style(channel.name, bold=True)}  version {channel.version}")
        _tell(channel)
    if not found:
        click.echo("no channels yet: edgekit channel set NAME --release RELEASE", err=True)


def _tell(channel: "Channel") -> None:
    for line in _lines(channel):
        click.echo(f"    {line}")


def _lines(channel: "Channel") -> list[str]:
    if channel.abort_to is not None:
        lines = [f"ABORTED: everybody goes to {channel.abort_to}, nobody to {channel.release}"]
    else:
        lines = [f"{'PAUSED: nobody begins ' if channel.pause else 'offers '}{channel.release}"]
    lines += [f"from {_day(step.not_before)} to {step.percent:g} % of devices" for step in channel.ramp]
    if channel.previous is not None:
        lines.append(f"who has nothing and is not yet in it: {channel.previous}")
    lines += [f"only {label}={'|'.join(values)}" for label, values in channel.labels.allow.items()]
    lines += [f"not {label}={'|'.join(values)}" for label, values in channel.labels.deny.items()]
    if channel.freshness == "warn":
        lines.append("also from metadata that is out of date")
    return [*lines, channel.note] if channel.note else lines


def _day(moment: int) -> str:
    return "now on" if moment == 0 else datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d %H:%M")


def _labels(words: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """Values by label; {} for "none", None if nothing was said. Raises UsageError."""
    if not words:
        return None
    if tuple(words) == ("none",):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        label, _, value = word.partition("=")
        if not label or not value:
            raise UsageError(f"{word!r} is not a label such as site=lyon.")
        found[label] = (*found.get(label, ()), value)
    return found

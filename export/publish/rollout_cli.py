"""`edgekit rollout`: how far a release has come, and whether it may go further. Light to import."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgekit.cli import print_json
from edgekit.errors import RolloutStopped, RolloutWaits, UsageError
from export.publish.terminal import (
    clock,
    done,
    json_option,
    keys_option,
    opened,
    repository_option,
    say_due,
    table,
    warn,
)

if TYPE_CHECKING:
    from edgekit.release.channel import Channel
    from export.publish.devices import Fleet, FleetFile, Gathered
    from export.publish.rollout import Move, Status

_WIDTH = 50
_DAY_S = 86_400.0
_BAR = {
    "installed": ("#", "green"),
    "trying": ("+", "cyan"),
    "failed": ("x", "red"),
    "pinned": ("p", "magenta"),
    "waiting": ("-", "yellow"),
    "silent": (".", "white"),
}
_FINDINGS = {
    "replayed": "older than one that was seen",
    "unknown": "of devices that are not enrolled",
    "forged": "that their device did not sign",
    "damaged": "that are none",
}

_devices = click.option(
    "--devices",
    "fleet",
    type=click.Path(path_type=Path),
    help="List of devices. Default: REPO.devices.json, beside it.",
)
_reports = click.option(
    "--reports",
    "folders",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder with reports, or a stick that came back; may be said several times.",
)
_silent = click.option(
    "--silent-after", type=click.FloatRange(0.01), default=7.0, show_default=True, help="Days without a report."
)


@click.group("rollout")
def rollout_command() -> None:
    """Watch a release reach devices, and let it go further or not."""


# --- who they are -----------------------------------------------------------------------------


@rollout_command.command("enrol", epilog="\b\nOn the device:\n  edgekit enrol --show > till-7.json")
@click.argument("records", metavar="DEVICE.json...", nargs=-1, required=True, type=click.Path(path_type=Path))
@repository_option
@_devices
@json_option
def enrol_command(records: tuple[Path, ...], repo: Path, fleet: Path | None, *, as_json: bool) -> None:
    """Believe a device's reports from now on. Its record holds a secret: delete the file afterwards."""
    from edgekit.release.reports import MAX_ENROLMENT_BYTES, parse_enrolment

    file = _fleet_file(repo, fleet)
    found = [parse_enrolment(_read(path, MAX_ENROLMENT_BYTES), path=str(path)) for path in records]
    for enrolment in found:
        file.enrol(enrolment, now=clock())
    if as_json:
        print_json({"enrolled": [enrolment.device for enrolment in found], "devices": str(file.path)})
        return
    done(f"{', '.join(enrolment.device for enrolment in found)} in {file.path}")


@rollout_command.command("forget", short_help="Believe a device's reports no longer.")
@click.argument("device")
@repository_option
@_devices
@json_option
def forget_command(device: str, repo: Path, fleet: Path | None, *, as_json: bool) -> None:
    """Take DEVICE out of the list: it was sold, lost, or its secret is known."""
    file = _fleet_file(repo, fleet)
    file.forget(device)
    if as_json:
        print_json({"forgotten": device, "devices": str(file.path)})
        return
    done(f"{device} is not in {file.path} any more")


@rollout_command.command("devices", short_help="List the devices and what each said last.")
@repository_option
@_devices
@_reports
@json_option
def devices_command(repo: Path, fleet: Path | None, folders: tuple[Path, ...], *, as_json: bool) -> None:
    """List the devices that are enrolled, and what each of them said last."""
    found = _gathered(_fleet_file(repo, fleet), folders)
    if as_json:
        print_json({"devices": _listed(found.fleet), "reports": _counts(found)})
        return
    rows = [("device", "seen", "runs", "has", "labels")]
    for member in found.fleet.members:
        report = member.report
        runs = "" if report is None else ", ".join(f"{line.channel}: {line.active or 'none'}" for line in report.lines)
        has = "" if report is None else str(len(report.have))
        labels = " ".join(f"{name}={value}" for name, value in member.as_device.labels.items())
        rows.append((member.device, _day(member.seen_at), runs, has, labels))
    click.echo(table(rows))
    _say_ignored(found)


def _listed(fleet: "Fleet") -> list[dict[str, Any]]:
    import msgspec

    return [
        {
            "device": member.device,
            "labels": dict(member.as_device.labels),
            "enrolled_at": member.enrolled_at,
            "seen_at": member.seen_at,
            "report": msgspec.to_builtins(member.report),
        }
        for member in fleet.members
    ]


# --- how far it is ----------------------------------------------------------------------------


@rollout_command.command(
    "status", epilog="\b\nExample:\n  edgekit rollout status --repo /srv/models --reports /srv/reports"
)
@repository_option
@_devices
@_reports
@_silent
@json_option
def status_command(
    repo: Path, fleet: Path | None, folders: tuple[Path, ...], silent_after: float, *, as_json: bool
) -> None:
    """Count devices by channel: who is offered the release, who runs it, on whom it failed, and who is silent."""
    from export.publish.repository import Repository
    from export.publish.rollout import status

    channels = Repository.open(repo).channels()
    found = _gathered(_fleet_file(repo, fleet), folders)
    states = [
        status(channel, found.fleet.members, now=clock(), silent_s=silent_after * _DAY_S)
        for channel in channels.values()
    ]
    if as_json:
        print_json(
            {
                "devices": len(found.fleet.members),
                "channels": [_facts(one) for one in states],
                "reports": _counts(found),
            }
        )
        return
    for one in states:
        _show(one)
    _say_ignored(found)


def _facts(one: "Status") -> dict[str, Any]:
    return {
        "channel": one.channel.name,
        "release": one.channel.abort_to or one.channel.release,
        "percent": one.percent,
        "state": _state(one.channel),
        "offered": one.offered,
        "counts": dict(one.counts),
        "stage": dict(one.stage),
        "versions": dict(one.versions),
        "reasons": dict(one.reasons),
    }


def _state(channel: "Channel") -> Literal["aborted", "paused", "open"]:
    return "aborted" if channel.abort_to is not None else "paused" if channel.pause else "open"


def _show(one: "Status") -> None:
    channel = one.channel
    state = {"aborted": f", aborted: back to {channel.abort_to}", "paused": ", paused", "open": ""}[_state(channel)]
    click.echo(f"{click.style(channel.name, bold=True)}  {channel.release}, {one.percent:g} % of all devices{state}")
    click.echo(f"  [{_bar(one.counts, one.offered)}]  {one.counts.get('installed', 0)} of {one.offered} offered")
    click.echo("  " + "   ".join(_legend(one.counts)))
    versions = ", ".join(f"{name} on {count}" for name, count in _most(one.versions))
    click.echo(f"  serving: {versions or 'nothing known'}")
    for reason, count in _most(one.reasons):
        click.echo(f"  {click.style('failed', fg='red')} on {count}: {reason}")
    click.echo()


def _bar(counts: Mapping[Any, int], total: int) -> str:
    """A character for each fiftieth; every kind that there is shows, even if it is one device among thousands."""
    lengths = {name: max(1, round(_WIDTH * count / total)) for name in _BAR if (count := counts.get(name, 0))}
    while sum(lengths.values()) > _WIDTH:
        lengths[max(lengths, key=lambda name: lengths[name])] -= 1
    drawn = "".join(click.style(_BAR[name][0] * length, fg=_BAR[name][1]) for name, length in lengths.items())
    return drawn + " " * (_WIDTH - sum(lengths.values()))


def _legend(counts: Mapping[Any, int]) -> list[str]:
    named = [f"{click.style(sign, fg=colour)} {counts.get(name, 0)} {name}" for name, (sign, colour) in _BAR.items()]
    return [*named, *(f"{counts[name]} {words}" for name, words in _OUTSIDE.items() if counts.get(name))]


_OUTSIDE = {"later": "not yet", "other": "not meant"}


def _most(counts: Mapping[str, int]) -> Sequence[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]


# --- how it goes on ---------------------------------------------------------------------------


class Percentages(click.ParamType[tuple[float, ...]]):
    """1,10,50,100."""

    name = "PERCENT,..."

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """As click calls it."""
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(float(part.strip().removesuffix("%")) for part in value.split(","))
        except ValueError:
            found = ()
        if not found or not all(0 < percent <= 100 for percent in found) or list(found) != sorted(set(found)):
            self.fail(f"{value!r} is no list of percentages such as 1,10,50,100", param, ctx)
        return found


class Share(click.ParamType[float]):
    """2% or 2."""

    name = "PERCENT"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click calls it."""
        try:
            found = float(str(value).strip().removesuffix("%"))
        except ValueError:
            found = -1.0
        if not 0 <= found <= 100:
            self.fail(f"{value!r} is no percentage such as 2%", param, ctx)
        return found


@rollout_command.command(
    "advance",
    short_help="Let a release go to more devices, or not.",
    epilog="""\b
Examples:
  edgekit rollout advance stable --repo /srv/models --reports /srv/reports --steps 1,10,50,100
  edgekit rollout advance stable --repo /srv/models --reports /media/usb --to 50 --min-ok 5 --on-fail abort
\b
Exit codes, for cron: 0 it was widened, or there is nothing left to widen; 74 it waits for more reports;
75 it failed on too many devices and is paused (or aborted), or was before.""",
)
@click.argument("channel")
@repository_option
@keys_option
@_devices
@click.option(
    "--reports",
    "reports",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder with reports, or a stick that came back; may be said several times.",
)
@click.option("--to", "percent", type=click.FloatRange(0, 100, min_open=True), help="Widen to this percentage.")
@click.option("--steps", type=Percentages(), help="Widen to the next of these, such as 1,10,50,100.")
@click.option("--min-ok", type=click.IntRange(min=1), default=20, show_default=True, help="Devices that must run it.")
@click.option("--max-fail", type=Share(), default="2%", show_default=True, help="Share of devices that it may fail on.")
@click.option(
    "--on-fail", type=click.Choice(("pause", "abort")), default="pause", show_default=True, help="abort: all go back."
)
@_silent
@json_option
def advance_command(  # noqa: PLR0913, PLR0917 - click passes one argument for each option
    channel: str,
    repo: Path,
    folders: tuple[Path, ...],
    fleet: Path | None,
    reports: tuple[Path, ...],
    percent: float | None,
    steps: tuple[float, ...] | None,
    min_ok: int,
    max_fail: float,
    on_fail: Literal["pause", "abort"],
    silent_after: float,
    *,
    as_json: bool,
) -> None:
    """Let CHANNEL's release go to more devices, if enough of the newest stage run it and few enough failed.

    Below --min-ok it waits. Over --max-fail the channel is paused, or everybody is sent back, at once. Where devices
    look in a registry, `edgekit repo push` comes after it.
    """
    from export.publish.rollout import Limits, next_move, status

    if (percent is None) == (steps is None):
        raise UsageError("say --to PERCENT, or --steps with those to go through.")
    repository, keyring = opened(repo, folders)
    with repository.writing():
        now = clock()
        old = repository.channels().get(channel)
        if old is None:
            raise UsageError(f"there is no channel {channel!r} in {repo}.")
        found = _gathered(_fleet_file(repo, fleet), reports)
        state = status(old, found.fleet.members, now=now, silent_s=silent_after * _DAY_S)
        wanted = steps or (percent,) if percent is not None else steps or ()
        move = next_move(state, Limits(min_ok=min_ok, max_fail_percent=max_fail), wanted)
        new = _changed(old, move, on_fail, now)
        if new is not None:
            from export.publish.repository import Change

            published = repository.publish(Change(channels=(new,)), keyring, now=now)
            say_due(published)
    _say_ignored(found)
    _tell(move, state, new, as_json=as_json)


def _changed(old: "Channel", move: "Move", on_fail: Literal["pause", "abort"], now: float) -> "Channel | None":
    """The channel's next version, None if it stays as it is. Raises PublishError."""
    from export.publish.channels import Wish, changed
    from export.publish.rollout import widened

    if move.kind == "widen":
        wish = Wish(ramp=widened(old, move.percent, now=now))
    elif move.kind == "stop" and not old.pause and old.abort_to is None:
        back = old.previous if on_fail == "abort" else None
        if on_fail == "abort" and back is None:
            warn(f"channel {old.name} names no release to go back to: it is paused")
        wish = Wish(pause=True, note=move.reason) if back is None else Wish(abort_to=back, note=move.reason)
    else:
        return None
    return changed(old.name, old, wish, now=now, salt=old.salt)


def _tell(move: "Move", state: "Status", new: "Channel | None", *, as_json: bool) -> None:
    """Raises RolloutWaits or RolloutStopped."""
    sentence = f"channel {state.channel.name} is at {state.percent:g} %: {move.reason}"
    if move.kind == "stop" and new is not None:
        sentence += f". {'Everybody goes back to ' + new.abort_to if new.abort_to else 'It is paused now'}"
    if as_json:
        print_json(_facts(state) | {"move": move.kind, "reason": move.reason, "to_percent": move.percent or None})
        if move.kind in _EXITS:
            raise click.exceptions.Exit(_EXITS[move.kind].exit_code)
        return
    if move.kind in _EXITS:
        raise _EXITS[move.kind](sentence)
    done(
        f"channel {state.channel.name}: {state.percent:g} % -> {move.percent:g} %" if move.kind == "widen" else sentence
    )


_EXITS = {"wait": RolloutWaits, "stop": RolloutStopped}


# --- shared -----------------------------------------------------------------------------------


def _fleet_file(repo: Path, fleet: Path | None) -> "FleetFile":
    from export.publish.devices import FleetFile, default_path

    path = (fleet or default_path(repo)).resolve()
    if path.is_relative_to(repo.resolve()):
        raise UsageError(f"{path} is inside of the repository, where everybody can read the devices' secrets.")
    return FleetFile(path)


def _gathered(file: "FleetFile", folders: Sequence[Path]) -> "Gathered":
    found = file.gather(folders, now=clock())
    if not found.fleet.members:
        warn(f"no device is enrolled in {file.path}: nobody's reports are believed (edgekit rollout enrol)")
    return found


def _counts(found: "Gathered") -> dict[str, int]:
    return {str(finding): count for finding, count in found.findings.items()}


def _say_ignored(found: "Gathered") -> None:
    for finding, words in _FINDINGS.items():
        if count := _counts(found).get(finding, 0):
            warn(f"{count} reports {words} were ignored")


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


def _day(at: float | None) -> str:
    return "never" if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M")

"""`edgekit bundle`: a part of a repository on a stick, or in one file. Light to import."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import print_json
from edgekit.errors import UsageError
from export.cli import Bar
from export.publish.terminal import (
    clock,
    done,
    json_option,
    keys_option,
    megabytes,
    opened,
    repository_option,
    say_due,
    table,
    warn,
)

if TYPE_CHECKING:
    from export.publish.bundles import Group, Selection, Shelf
    from export.publish.copying import Copied

_MOST_FITS = 40


@click.group("bundle")
def bundle_command() -> None:
    """Bring releases to devices that have no network."""


@bundle_command.command(
    "create",
    epilog="""\b
Examples:
  edgekit bundle create --repo /srv/models -o /media/usb                       for any device
  edgekit bundle create --repo /srv/models --since tiny-1.0 -o /media/usb      small: only for those that have tiny-1.0
  edgekit bundle create --repo /srv/models --for /media/usb -o /media/usb      for those that left reports on it
  edgekit bundle create --repo /srv/models --channel stable --tar stable.tar
\b
On the device:
  edgekit sync --once --repo /media/usb""",
)
@repository_option
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), help="Folder to make, or to bring up to date.")
@click.option("--tar", "tar", type=click.Path(path_type=Path), help="One plain tar file instead.")
@click.option("--channel", "channels", multiple=True, help="Only these channels. Default: all.")
@click.option("--release", "releases", multiple=True, help="This release too, whether a channel names it or not.")
@click.option("--since", "bases", multiple=True, metavar="RELEASE", help="For devices that have this release whole.")
@click.option(
    "--for",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    help="For the devices of this list (REPO.devices.json), or of these reports: a folder, or a stick that came back.",
)
@click.option(
    "--devices",
    "fleet",
    type=click.Path(path_type=Path),
    help="List of devices. Default: REPO.devices.json, beside it.",
)
@click.option(
    "--expires",
    "days",
    type=click.IntRange(1, 3650),
    help="Sign the repository's metadata so that it counts for so many days, before it is copied.",
)
@keys_option
@click.option("--clean", is_flag=True, help="Delete what earlier bundles left there and this one does not need.")
@json_option
def create_command(  # noqa: PLR0913, PLR0917 - click passes one argument for each option
    repo: Path,
    out: Path | None,
    tar: Path | None,
    channels: tuple[str, ...],
    releases: tuple[str, ...],
    bases: tuple[str, ...],
    reports: tuple[Path, ...],
    fleet: Path | None,
    days: int | None,
    folders: tuple[Path, ...],
    *,
    clean: bool,
    as_json: bool,
) -> None:
    """Copy what certain devices need onto a stick, with everything by which they know that it is yours.

    One stick serves many devices at many versions. Everything is read back before it counts; a stick that was pulled
    is finished by the same command. Devices leave reports in its folder `returns`.
    """
    from export.publish import bundles, copying
    from export.publish.repository import Repository

    where = out or tar
    if where is None or (out and tar):
        raise UsageError("say either -o FOLDER or --tar FILE.")
    if clean and out is None:
        raise UsageError("--clean is for a folder.")
    repository = Repository.open(repo)
    if days is not None:
        _last(repo, folders, days)
    shelf = bundles.shelf_of(repository)
    groups = (*bundles.groups_since(bases, shelf), *_groups(repo, reports, fleet))
    selection = bundles.select(shelf, groups, now=clock(), channels=channels, releases=releases)
    bar = Bar()
    bar.stage(f"{len(selection.pieces)} files, {megabytes(selection.bytes)}")
    write = copying.write_tar if out is None else copying.write_folder
    copied = write(selection, repository.folder, where, bar.advance)
    freed = copying.clean(selection, out) if clean and out is not None else 0
    _show(where, shelf, selection, copied, freed, as_json=as_json)


def _last(repo: Path, folders: Sequence[Path], days: int) -> None:
    from export.publish.repository import Change

    repository, keyring = opened(repo, folders)
    say_due(repository.publish(Change(days=days), keyring, now=clock()))
    warn(
        f"for {days} days this metadata counts: who shows it to devices again that long, and nothing newer, keeps them"
        " from updates unnoticed. `edgekit repo refresh` makes shorter ones for devices on the network"
    )


def _groups(repo: Path, places: Sequence[Path], fleet: Path | None) -> "tuple[Group, ...]":
    """The devices of lists, and those that left reports in folders. Raises UsageError if there is none at all."""
    from export.publish import bundles, devices

    if not places:
        return ()
    folders = [place for place in places if place.is_dir()]
    known = devices.FleetFile(fleet or devices.default_path(repo)).gather(folders, now=clock()).fleet
    reports = list(devices.speakers(devices.envelopes_in(folders), known))
    heard = {report.device for report in reports}
    listed = [member for place in places if not place.is_dir() for member in devices.FleetFile(place).read().members]
    others = [member for member in listed if member.device not in heard]
    reports += [member.report for member in others if member.report is not None]
    silent = [member.as_device for member in others if member.report is None]
    if not reports and not silent:
        raise UsageError(f"no device is in {', '.join(str(place) for place in places)}.")
    return bundles.groups_of(reports, silent)


# --- what is said -----------------------------------------------------------------------------


def _show(where: Path, shelf: "Shelf", selection: "Selection", copied: "Copied", freed: int, *, as_json: bool) -> None:
    until = datetime.datetime.fromtimestamp(shelf.expires, datetime.UTC)
    if as_json:
        print_json(_facts(where, shelf, selection, copied, freed))
        return
    done(
        f"{where}: {megabytes(selection.bytes)} in {len(selection.pieces)} files,"
        f" {megabytes(copied.copied_bytes)} of them copied now"
    )
    rows = [(fit.group.name, fit.release, megabytes(fit.bytes)) for fit in selection.fits]
    click.echo("\nWhat devices read from it:\n" if rows else "\nNo channel offers anything yet: it has only keys.")
    if rows:
        click.echo(table(rows[:_MOST_FITS]))
    if len(rows) > _MOST_FITS:
        click.echo(f"... and {len(rows) - _MOST_FITS} more")
    click.echo(f"\nDevices install from it until {until:%Y-%m-%d}, and later where their channel says freshness=warn.")
    if freed:
        click.echo(f"{megabytes(freed)} of earlier bundles were deleted.")


def _facts(where: Path, shelf: "Shelf", selection: "Selection", copied: "Copied", freed: int) -> dict[str, Any]:
    return {
        "bundle": str(where),
        "bytes": selection.bytes,
        "files": len(selection.pieces),
        "copied_bytes": copied.copied_bytes,
        "kept_bytes": copied.kept_bytes,
        "freed_bytes": freed,
        "expires": int(shelf.expires),
        "fits": [
            {"for": fit.group.name, "devices": list(fit.group.devices), "release": fit.release, "bytes": fit.bytes}
            for fit in selection.fits
        ],
    }

"""`edgekit publish`: from a bundle to what devices are offered. Light to import."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from edgekit.cli import print_json
from edgekit.errors import KeyUnavailable, PublishError, Unreachable, UsageError
from edgekit.settings import parse_size
from export.cli import Bar
from export.publish.push_cli import pushed, say_pushed
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
)

if TYPE_CHECKING:
    from edgekit.release.manifest import HealthFloor, Requires
    from edgekit.release.oci import Reference
    from export.publish.keys import Keyring
    from export.publish.pipeline import Group, Job, Outcome
    from export.publish.repository import Repository
    from export.publish.verify import Place

Record = TypeVar("Record")

_REASONS = 3
_WORTH_TELLING = 0.05
_HEALTH = {"agreement": "agreement", "speed": "decode_tokens_per_s", "memory": "rss_bytes", "probe": "probe_s"}
_REQUIRES = {"edgekit": "edgekit", "onnxruntime": "onnxruntime", "machine": "machines", "memory": "memory_bytes"}
"""Words of --health and --requires, and the manifest's fields that they mean."""


@click.command(
    "publish",
    epilog="""\b
Examples:
  edgekit publish my-model --repo /srv/models --channel stable
  edgekit publish my-model --repo /srv/models --channel stable --percent 5
  edgekit publish my-model --repo /srv/models --channel stable --ramp 2026-12-01:5,2026-12-03:50,2026-12-05:100
  edgekit publish my-lora --repo /srv/models --channel support-tone --keys /srv/models.keys --keys /media/stick
\b
With the key of `releases` on a machine that is not on the network:
  edgekit publish my-model --repo /srv/models --unsigned request.json
  edgekit repo sign request.json --keys /media/stick                      (there)
  edgekit publish my-model --repo /srv/models --signed request.json --channel stable""",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@repository_option
@click.option(
    "--channel",
    help="Offer it in this channel, which is made if there is none. Default: stable for models; adapters need a name.",
)
@click.option("--no-offer", is_flag=True, help="Only list it: no channel names it yet.")
@keys_option
@click.option("--percent", type=click.FloatRange(0, 100), help="Share of devices that are offered it now.")
@click.option("--ramp", metavar="DAY:PERCENT,...", help="Shares from certain days on (UTC).")
@click.option("--note", help="A sentence for people, in the channel file.")
@click.option(
    "--health",
    "health",
    multiple=True,
    metavar="WHAT=N",
    help="What it must show on a device before it serves: agreement=0.95, speed=4 (tokens/s), memory=900MB, probe=300"
    " (seconds).",
)
@click.option("--soak", type=click.FloatRange(0, 7 * 86_400), help="Seconds without a fault until the old one may go.")
@click.option(
    "--requires",
    "requires",
    multiple=True,
    metavar="WHAT=V",
    help="What a device must have: onnxruntime=1.31, edgekit=0.1, machine=aarch64, memory=1GB.",
)
@click.option("--delta-from", "bases", multiple=True, metavar="RELEASE", help="Make a delta from this release.")
@click.option(
    "--deltas",
    "most",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    help="Otherwise: deltas from so many of the releases that channels name now.",
)
@click.option("--cpu", type=click.Choice(("any", "slow")), default="any", help="slow: what unpacks quickly.")
@click.option("--unsigned", type=click.Path(path_type=Path), help="Only write content, and a signing request here.")
@click.option("--signed", type=click.Path(path_type=Path), help="Go on with a signing request that came back.")
@click.option(
    "--verify-url", metavar="URL", help="Fetch it again from here, as devices will, before saying it is done."
)
@click.option(
    "--oci",
    metavar="HOST/NAME:TAG",
    help="Push it into an OCI registry as well, as `edgekit repo push` does with what is changed later.",
)
@json_option
def publish_command(  # noqa: PLR0913, PLR0917 - click passes one argument for each option
    bundle: Path,
    repo: Path,
    channel: str | None,
    folders: tuple[Path, ...],
    percent: float | None,
    ramp: str | None,
    note: str | None,
    health: tuple[str, ...],
    soak: float | None,
    requires: tuple[str, ...],
    bases: tuple[str, ...],
    most: int,
    cpu: str,
    unsigned: Path | None,
    signed: Path | None,
    verify_url: str | None,
    oci: str | None,
    *,
    no_offer: bool,
    as_json: bool,
) -> None:
    """Sign BUNDLE (or an adapter's folder) into a repository, and say what devices will fetch.

    It is devices' choice when: they see it the next time they look. What was published before stays as it is.
    """
    from edgekit.release import codec
    from edgekit.release.oci import parse_reference
    from export.publish.channels import check_name, steps
    from export.publish.pipeline import Job
    from export.publish.verify import place_of

    target = None if oci is None else parse_reference(oci)
    channel = None if no_offer else channel or _usual_channel(bundle)
    if channel is not None:
        check_name(channel)
    if channel is None and (percent is not None or ramp is not None):
        raise UsageError("--percent and --ramp are for a --channel.")
    if unsigned and signed:
        raise UsageError("--unsigned makes the request that --signed goes on with: give one of them.")
    if unsigned and target is not None:
        raise UsageError("--unsigned publishes nothing yet: --oci goes with --signed.")
    job = Job(
        folder=bundle,
        channel=channel,
        ramp=steps(percent, ramp),
        note=note,
        health=_health(health, soak),
        requires=_requires(requires),
        bases=bases or None,
        most_deltas=most,
        codecs=codec.SLOW if cpu == "slow" else codec.EVERY,
    )
    place = place_of(verify_url or str(repo))
    repository, keyring = opened(repo, folders)
    if unsigned is not None:
        _prepare(job, repository, unsigned, as_json=as_json)
        return
    outcome = _publish(job, repository, keyring, signed)
    _verify(outcome, repository, place)
    facts = _pushed(outcome, repository, target) if target is not None else None
    _show(outcome, repo, facts, as_json=as_json)


def _usual_channel(folder: Path) -> str | None:
    """A channel brings one model: an adapter needs one of its own, whose name its owner says."""
    from edgekit import contract

    return None if (folder / contract.ADAPTER_MANIFEST_FILE).is_file() else "stable"


def _pushed(outcome: "Outcome", repository: "Repository", target: "Reference") -> dict[str, Any]:
    """The folder has it by now, whatever a registry says. Raises PublishError."""
    try:
        return pushed(repository, outcome.release, target)
    except PublishError as error:
        after = f"It is published in {repository.folder}, and `edgekit repo push {repository.folder} {target}` goes on"
        raise PublishError(f"{error.problem}. {after}") from error


def _publish(job: "Job", repository: "Repository", keyring: "Keyring", signed: Path | None) -> "Outcome":
    from export.publish import pipeline, requests

    if signed is not None:
        request = requests.read(signed)
        return pipeline.complete(job, request, repository, keyring, Bar(), now=clock())
    try:
        return pipeline.publish(job, repository, keyring, Bar(), now=clock())
    except KeyUnavailable as error:
        raise KeyUnavailable(
            f"{error.problem}. If that key is elsewhere: --unsigned FILE writes what it has to sign"
        ) from error


def _prepare(job: "Job", repository: "Repository", file: Path, *, as_json: bool) -> None:
    from edgekit.files import write_durably
    from export.publish import pipeline

    release, request = pipeline.prepare(job, repository, Bar(), now=clock())
    write_durably(file, request.to_bytes())
    if as_json:
        print_json({"release": release.id, "request": str(file), "published": False})
        return
    done(f"{release.id} is in the repository, and no device is told of it yet")
    click.echo(f"    1. where the key of releases is:  edgekit repo sign {file} --keys FOLDER")
    click.echo(f"    2. here, the same command again:  edgekit publish {job.folder} ... --signed {file}")


def _verify(outcome: "Outcome", repository: "Repository", place: "Place") -> None:
    """Look at it again as a device; what is new is read whole."""
    from export.publish.verify import shows

    packs = (*outcome.release.packs, *(pack for delta in outcome.deltas for pack in delta.packs))
    new = {pack.sha256 for pack in packs}
    bar = Bar()
    bar.stage(f"fetching it again from {place.name}")
    try:
        shows(place, repository.root(1), repository.folder, now=clock(), tell=bar.advance, read=new)
    except Unreachable as error:
        said = f"{outcome.release.id} is published in {repository.folder}, and nobody sees it there yet"
        raise type(error)(f"{error.problem}; {said}: `edgekit repo verify --url` looks again") from error


def _show(outcome: "Outcome", repo: Path, in_registry: dict[str, Any] | None, *, as_json: bool) -> None:
    if as_json:
        print_json(_facts(outcome, repo) | ({"pushed": in_registry} if in_registry is not None else {}))
        return
    release, channel = outcome.release, outcome.channel
    click.echo()
    done(f"{release.id} {'was published already' if outcome.was_there else 'is published'} in {repo}")
    if channel is not None:
        shares = ", ".join(f"{step.percent:g} %" for step in channel.ramp) or "every device"
        click.echo(f"    channel {channel.name}: {shares}")
    click.echo("\nWhat devices fetch:\n")
    for line in table([_row(group) for group in outcome.groups]).splitlines():
        click.echo(f"    {line}")
    for group in outcome.groups:
        if group.base is not None and (reasons := _reasons(group)):
            click.echo(f"\n    from {group.base}, most of it is {reasons}")
    if in_registry is not None:
        click.echo(f"\nIn the registry, {in_registry['reference']}:\n")
        say_pushed(in_registry)
    say_due(outcome.published)


def _row(group: "Group") -> tuple[str, str, str]:
    found = group.prediction
    if group.base is None:
        return "new devices", megabytes(found.full_bytes), ""
    return f"from {group.base}", megabytes(found.bytes), f"{found.bytes / found.full_bytes:.1%}"


def _reasons(group: "Group") -> str:
    """The files that cost most; where nearly all is what tells of the release itself, none."""
    shares = sorted(group.prediction.shares, key=lambda share: -share.bytes)[:_REASONS]
    return ", ".join(
        f"{share.path} ({megabytes(share.difference_bytes)} of differences, {megabytes(share.whole_bytes)} new)"
        for share in shares
        if share.bytes >= group.prediction.bytes * _WORTH_TELLING
    )


def _facts(outcome: "Outcome", repo: Path) -> dict[str, Any]:
    release = outcome.release
    return {
        "release": release.id,
        "sequence": release.sequence,
        "kind": release.kind,
        "repository": str(repo),
        "already": outcome.was_there,
        "bytes": release.file_bytes,
        "channel": msgspec.to_builtins(outcome.channel),
        "deltas": [delta.base for delta in outcome.deltas],
        "groups": [
            {
                "base": group.base,
                "bytes": group.prediction.full_bytes if group.base is None else group.prediction.bytes,
                "full_bytes": group.prediction.full_bytes,
                "files": [
                    {"path": one.path, "differences": one.difference_bytes, "new": one.whole_bytes}
                    for one in group.prediction.shares
                    if one.bytes
                ],
            }
            for group in outcome.groups
        ],
        "signed": list(outcome.published.signed),
        "due": list(outcome.published.due),
    }


def _health(words: Sequence[str], soak: float | None) -> "HealthFloor | None":
    from edgekit.release.manifest import HealthFloor

    found = _fields(words, _HEALTH, "--health")
    if soak is not None:
        found["soak_s"] = soak
    return _record(HealthFloor, found, "--health") if found else None


def _requires(words: Sequence[str]) -> "Requires | None":
    from edgekit.release.manifest import Requires

    found = _fields(words, _REQUIRES, "--requires")
    if "machines" in found:
        found["machines"] = str(found["machines"]).split("|")
    return _record(Requires, found, "--requires") if found else None


def _fields(words: Sequence[str], known: Mapping[str, str], option: str) -> dict[str, object]:
    """The manifest's fields from WHAT=VALUE. Raises UsageError."""
    found: dict[str, object] = {}
    for word in words:
        what, _, value = word.partition("=")
        if what not in known or not value:
            raise UsageError(f"{option} {word}: say one of {', '.join(f'{name}=...' for name in known)}.")
        found[known[what]] = parse_size(value) if known[what].endswith("_bytes") else value
    return found


def _record(kind: type[Record], fields: Mapping[str, object], option: str) -> Record:
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{option}: {error}") from error

"""`edgekit repo push`: what a repository offers, in an OCI registry. Light to import."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import print_json
from export.cli import Bar
from export.publish.terminal import done, json_option, repository_argument

if TYPE_CHECKING:
    from edgekit.release.manifest import Release
    from edgekit.release.oci import Reference
    from export.publish.repository import Repository


@click.command(
    "push",
    epilog="""\b
Examples:
  edgekit repo push /srv/models registry.example/my-model:stable
  edgekit repo refresh /srv/models && edgekit repo push /srv/models registry.example/my-model:stable
\b
On devices: --repo oci://registry.example/my-model:stable. Name and password are EDGEKIT_REGISTRY_USER and
EDGEKIT_REGISTRY_PASSWORD, or those of `docker login`; on devices they are part of the address:
oci://user:password@registry.example/my-model:stable.""",
)
@repository_argument
@click.argument("reference", metavar="HOST/NAME:TAG")
@click.option("--channel", help="The tag holds its release. Default: the channel called like the tag, or the only one.")
@json_option
def push_command(repo: Path, reference: str, channel: str | None, *, as_json: bool) -> None:
    """Push what the repository offers now into an OCI registry.

    After everything that signs: `publish`, `repo refresh`, `channel set`, `rollout advance`, `keys`. The tag holds one
    release, as a ModelPack artifact that other tools read, and everything that devices need to trust it; what else
    channels name goes beside it, under tags of its own. Only what is not there yet is sent. Tags of releases that no
    channel names any more stay, until you delete them there.
    """
    from edgekit.release.oci import parse_reference
    from export.publish.oci import offered_by
    from export.publish.repository import Repository

    target = parse_reference(reference)
    repository = Repository.open(repo)
    release = repository.releases()[offered_by(repository.channels(), target.tag, channel)]
    facts = pushed(repository, release, target)
    if as_json:
        print_json(facts)
        return
    done(f"{facts['reference']} holds {release.id}")
    say_pushed(facts)


def pushed(repository: "Repository", release: "Release", reference: "Reference") -> dict[str, Any]:
    """Push with a bar; what was done. Raises PublishError, UsageError."""
    from export.publish.logins import credentials_for
    from export.publish.oci import push

    bar = Bar()
    bar.stage(f"pushing to {reference}")
    credentials = credentials_for(reference.host, os.environ)
    found = push(repository, release, reference, credentials=credentials, tell=bar.advance)
    return {
        "reference": str(reference),
        "release": release.id,
        "digest": found.digest,
        "sent_blobs": found.sent_blobs,
        "sent_bytes": found.sent_bytes,
        "present_bytes": found.present_bytes,
    }


def say_pushed(facts: dict[str, Any]) -> None:
    """What went over the network."""
    sent = f"{facts['sent_bytes']:,} bytes sent in {facts['sent_blobs']} blobs"
    click.echo(f"    {facts['digest']}\n    {sent}, {facts['present_bytes']:,} there before")

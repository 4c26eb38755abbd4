"""From a folder to what devices are offered: the main path of `edgekit publish`.

    check the folder -> sequence -> cut and pack (content) -> differences to what devices have (deltas)
                     -> what each group of devices will fetch -> channel -> sign -> timestamp last (repository)

Whoever has the key of `releases` elsewhere publishes in two goes: `prepare` writes the content and a signing request,
and once that came back signed, `complete` does the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
from tuf.api.metadata import Metadata, Targets

from edgekit import contract
from edgekit.bundle import read_manifest
from edgekit.errors import KeyUnavailable, PublishError
from edgekit.files import sha256_of
from edgekit.release import codec, manifest
from edgekit.release.channel import Channel, RampStep
from edgekit.release.delta import Delta
from edgekit.release.manifest import Codec, HealthFloor, Release, Requires
from edgekit.release.names import RELEASES, ROLLOUT, ChannelName, ReleaseId, release_target, target_path
from export.publish import metadata, requests
from export.publish.channels import Wish, changed, new_salt
from export.publish.content import Named, add_release, named
from export.publish.deltas import Prediction, make_delta, predict
from export.publish.keys import Keyring, shown
from export.publish.repository import Change, Published, Repository
from export.publish.requests import Request


class Progress(Protocol):
    """Told what is going on, as export's."""

    def stage(self, title: str) -> None:
        """Something begins."""

    def advance(self, done: int, total: int) -> None:
        """So much of it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be published, and for whom.

    `bases` are releases that get a delta; None: those that channels name now, `most_deltas` of them at most. `health`
    and `requires` are None where the defaults do; a release that is there already keeps its own.
    """

    folder: Path
    channel: ChannelName | None = None
    ramp: tuple[RampStep, ...] | None = None
    note: str | None = None
    health: HealthFloor | None = None
    requires: Requires | None = None
    bases: tuple[ReleaseId, ...] | None = None
    most_deltas: int = 3
    codecs: tuple[Codec, ...] = codec.EVERY


@dataclass(frozen=True, slots=True)
class Group:
    """Devices that have `base` whole (None: nothing), and what they fetch."""

    base: ReleaseId | None
    prediction: Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    release: Release
    was_there: bool
    groups: tuple[Group, ...]
    deltas: tuple[Delta, ...]
    channel: Channel | None
    published: Published


def publish(job: Job, repository: Repository, keyring: Keyring, progress: Progress, *, now: float) -> Outcome:
    """Do all of it. A release that is there with the same content is not made again, but offered.

    Raises BundleError subclasses, PublishError, KeyUnavailable (before anything is read, where that can be told).
    """
    with repository.writing():
        folder = named(job.folder)
        there = _there(job, folder, repository)
        _unlock(repository, keyring, [ROLLOUT, "snapshot", "timestamp", *([] if there else [RELEASES])])
        release = there or _stored(job, repository, progress)
        new = () if there else (release,)
        return _finished(job, release, repository, keyring, progress, now=now, new=new)


def prepare(job: Job, repository: Repository, progress: Progress, *, now: float) -> tuple[Release, Request]:
    """Write the content; devices see nothing of it yet. Raises as `publish`."""
    with repository.writing():
        folder = named(job.folder)
        if _there(job, folder, repository):
            raise PublishError(f"{folder.name}-{folder.version} is published already: there is nothing to sign")
        release = _stored(job, repository, progress)
        draft = repository.draft(Change(releases=(release,)), now=now)
        return release, requests.for_releases(repository.state(), draft)


def complete(
    job: Job, request: Request, repository: Repository, keyring: Keyring, progress: Progress, *, now: float
) -> Outcome:
    """Publish what `prepare` wrote. Raises PublishError if the request does not list the folder; KeyUnavailable."""
    with repository.writing():
        folder = named(job.folder)
        signed = requests.releases_of(request)
        path = release_target(f"{folder.name}-{folder.version}")
        if path not in signed.signed.targets:
            raise PublishError(f"the signing request does not list {folder.name}-{folder.version}")
        sha256 = signed.signed.targets[path].hashes["sha256"]
        release = manifest.parse(repository.tree.read(target_path(path, sha256)))
        return _finished(job, release, repository, keyring, progress, now=now, signed=signed)


def _there(job: Job, folder: Named, repository: Repository) -> Release | None:
    """The release, if it is listed. Raises PublishError if that is another one under the same name."""
    release = repository.releases().get(f"{folder.name}-{folder.version}")
    if release is None:
        return None
    entry = contract.MANIFEST_FILE if folder.kind == "model" else contract.ADAPTER_MANIFEST_FILE
    digests = {file.path: file.sha256 for file in release.files}
    if release.kind != folder.kind or digests.get(entry) != sha256_of(job.folder / entry):
        raise PublishError(
            f"{release.id} was published with other content, and an id is never given twice: export it with another"
            " --version"
        )
    asked = job.health or release.health, _required(job) if job.requires else release.requires
    if asked != (release.health, release.requires):
        raise PublishError(f"{release.id} was published with other conditions: export it with another --version")
    return release


def _unlock(repository: Repository, keyring: Keyring, roles: Sequence[str]) -> None:
    """Ask for passphrases now, and not after minutes of work. Raises KeyUnavailable."""
    state = repository.state()
    for role in roles:
        who = metadata.authority(role, state.root.signed, state.targets.signed)
        at_hand = [key for key in who.keys if keyring.has(key.keyid)]
        if len(at_hand) < who.threshold:
            names = ", ".join(shown(key.keyid) for key in who.keys)
            raise KeyUnavailable(f"{role} is signed by {who.threshold} of the keys {names}, and they are not at hand")
        for key in at_hand[: who.threshold]:
            keyring.signer(key)


def _stored(job: Job, repository: Repository, progress: Progress) -> Release:
    progress.stage("content")
    return add_release(
        job.folder,
        repository.folder,
        sequence=repository.next_sequence(),
        earlier=tuple(repository.releases().values()),
        health=job.health or HealthFloor(),
        requires=_required(job),
        codecs=job.codecs,
        tell=progress.advance,
    )


def _required(job: Job) -> Requires:
    """What was asked for, and the onnxruntime that the bundle says itself."""
    requires = job.requires or Requires()
    if requires.onnxruntime is not None or not (job.folder / contract.MANIFEST_FILE).is_file():
        return requires
    return msgspec.structs.replace(requires, onnxruntime=read_manifest(job.folder).requires.onnxruntime)


def _finished(
    job: Job,
    release: Release,
    repository: Repository,
    keyring: Keyring,
    progress: Progress,
    *,
    now: float,
    new: tuple[Release, ...] = (),
    signed: Metadata[Targets] | None = None,
) -> Outcome:
    releases, channels = repository.releases(), repository.channels()
    bases = [releases[base] for base in _bases(job, release, releases, channels)]
    known = {(delta.base, delta.release): delta for delta in repository.deltas()}
    made: dict[ReleaseId, Delta] = {}
    for base in bases:
        progress.stage(f"differences from {base.id}")
        made[base.id] = known.get((base.id, release.id)) or make_delta(
            base, None, release, job.folder, repository.folder, job.codecs
        )
    channel = _channel(job, release, channels, now)
    fresh = tuple(made[base.id] for base in bases if made[base.id].differences and (base.id, release.id) not in known)
    progress.stage("signing")
    change = Change(releases=new, channels=(channel,) if channel else (), deltas=fresh)
    published = repository.publish(change, keyring, now=now, releases=signed)
    groups = [Group(base.id, predict(base, release, _useful(made[base.id]))) for base in bases]
    nothing = Group(None, predict(_empty(release), release, None))
    return Outcome(
        release=release,
        was_there=not new and signed is None,
        groups=(*groups, nothing),
        deltas=fresh,
        channel=channel,
        published=published,
    )


def _useful(delta: Delta) -> Delta | None:
    return delta if delta.differences else None


def _empty(release: Release) -> Release:
    """The base of those who have nothing."""
    return Release(
        format=release.format,
        kind=release.kind,
        name=release.name,
        version=release.version,
        sequence=release.sequence,
        files=(),
        packs=(),
    )


def _bases(
    job: Job, release: Release, releases: Mapping[ReleaseId, Release], channels: Mapping[ChannelName, Channel]
) -> list[ReleaseId]:
    """Releases that get a delta, the likeliest first: those that the channel names, then other channels'.

    Raises PublishError for one that was asked for and is not listed.
    """
    if job.bases is not None:
        if missing := [base for base in job.bases if base not in releases]:
            raise PublishError(f"there is no release {missing[0]} to make a delta from")
        return [base for base in dict.fromkeys(job.bases) if base != release.id]
    ordered = sorted(channels.values(), key=lambda channel: channel.name != job.channel)
    named_now = [one for channel in ordered for one in (channel.release, channel.previous, channel.abort_to)]
    found = [
        one
        for one in dict.fromkeys(named_now)
        if one is not None
        and one != release.id
        and (releases[one].name, releases[one].kind) == (release.name, release.kind)
    ]
    return found[: job.most_deltas]


def _channel(job: Job, release: Release, channels: Mapping[ChannelName, Channel], now: float) -> Channel | None:
    """The channel's next version; None if it need not change."""
    if job.channel is None:
        return None
    old = channels.get(job.channel)
    if old is not None and old.release == release.id and job.ramp is None and job.note is None:
        return None
    wish = Wish(release=release.id, ramp=job.ramp, note=job.note)
    return changed(job.channel, old, wish, now=now, salt=new_salt())

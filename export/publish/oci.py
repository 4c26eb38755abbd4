"""Pushing into an OCI registry what a repository offers: what is not there yet, then manifests, and the tag last.

The layout is that of edgekit/release/oci.py. A tag that was pushed halfway is as it was before: its manifest comes when
everything that it names is there.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgekit import contract
from edgekit.errors import PublishError, UsageError
from edgekit.manifest import parse as parse_bundle
from edgekit.release import oci
from edgekit.release.channel import Channel
from edgekit.release.manifest import Pack, Release
from edgekit.release.names import RELEASES, ROLLOUT, ReleaseId, delta_target, pack_path, release_target, target_path
from edgekit.release.oci import Reference
from export.publish.packing import place_of, read_chunk
from export.publish.registry import NOBODY, Credentials, Open, Registry
from export.publish.repository import Repository
from export.publish.tree import TIMESTAMP, metadata_path

Tell = Callable[[int, int], None]
"""Bytes that are in the registry, of how many."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in a registry: their digest, number and media type, and the path of the file that they are."""

    sha256: str
    size: int
    media_type: str
    path: str
    read: Open

    @property
    def descriptor(self) -> dict[str, object]:
        """As a manifest names them."""
        found: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": f"sha256:{self.sha256}",
            "size": self.size,
        }
        return found | ({"annotations": {oci.FILE_PATH: self.path, oci.TITLE: self.path}} if self.path else {})


@dataclass(frozen=True, slots=True)
class Artifact:
    """A release as it lies under a tag. The last of `blobs` is the configuration, the others are layers."""

    tag: str
    blobs: tuple[Blob, ...]
    manifest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What was done: the manifest's digest, what went over the network, and bytes that were there already."""

    digest: str
    sent_blobs: int
    sent_bytes: int
    present_bytes: int


def offered_by(channels: Mapping[str, Channel], tag: str, name: str | None) -> ReleaseId:
    """The release that a tag is to hold: that of the channel `name`, else of the one called like the tag, or the only.

    Raises UsageError.
    """
    found = channels.get(name or tag)
    if found is None and name is None and len(channels) == 1:
        [found] = channels.values()
    if found is None:
        known = ", ".join(channels) or "none"
        problem = f"there is no channel {name}" if name else f"no channel is called {tag}: say --channel"
        raise UsageError(f"{problem}; there are: {known}.")
    return found.abort_to or found.release


def push(
    repository: Repository,
    release: Release,
    reference: Reference,
    *,
    credentials: Credentials = NOBODY,
    tell: Tell = lambda _done, _total: None,
) -> Pushed:
    """Push a release, and whatever else channels name, with all that devices need to trust it.

    What is there already is not sent again: anew after a refresh this costs a few kilobytes. Raises PublishError;
    devices see what they saw before then.
    """
    artifacts = _artifacts(repository, release, reference)
    total = sum(blob.size for one in artifacts for blob in one.blobs)
    here: set[str] = set()
    sent_blobs = sent_bytes = done = 0
    with closing(Registry(reference, credentials)) as registry:
        for one in artifacts:
            for blob in one.blobs:
                if blob.sha256 not in here and not registry.has(blob.sha256):
                    registry.upload(blob.sha256, blob.size, blob.read)
                    sent_blobs += 1
                    sent_bytes += blob.size
                here.add(blob.sha256)
                done += blob.size
                tell(done, total)
            registry.tag(one.manifest, one.tag)
    return Pushed(
        digest=f"sha256:{hashlib.sha256(artifacts[-1].manifest).hexdigest()}",
        sent_blobs=sent_blobs,
        sent_bytes=sent_bytes,
        present_bytes=total - sent_bytes,
    )


# --- what is to be there ----------------------------------------------------------------------


def _artifacts(repository: Repository, release: Release, reference: Reference) -> tuple[Artifact, ...]:
    """What channels name beside, each under a tag of its own, and then the release. Raises PublishError."""
    with repository.writing():  # nobody signs anything between two looks
        beside = [other for other in _named(repository) if other.id != release.id]
        signed = tuple(_signed(repository, (*beside, release)))
    tagged = {oci.tag_of(other.id): other for other in beside}
    tagged.pop(reference.tag, None)
    return tuple(
        _artifact(repository.folder, one, signed, tag) for tag, one in (*tagged.items(), (reference.tag, release))
    )


def _named(repository: Repository) -> Iterator[Release]:
    """Releases that channels name: devices may be told to go to any of them."""
    releases = repository.releases()
    channels = repository.channels().values()
    names = {name for one in channels for name in (one.release, one.previous, one.abort_to) if name is not None}
    return (releases[name] for name in sorted(names) if name in releases)


def _artifact(folder: Path, release: Release, signed: tuple[Blob, ...], tag: str) -> Artifact:
    layers = (*_files(folder, release), *signed)
    config = _config(release, layers, _facts(folder, release))
    described = _blob("", config, oci.CONFIG_TYPE)
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST_TYPE,
            "artifactType": oci.ARTIFACT_TYPE,
            "config": described.descriptor,
            "layers": [layer.descriptor for layer in layers],
        }
    )
    if len(manifest) > oci.MAX_MANIFEST_BYTES:
        raise PublishError(
            f"{release.id} has {len(release.files):,} files, and its manifest would take {len(manifest):,} bytes:"
            f" registries take {oci.MAX_MANIFEST_BYTES:,}"
        )
    return Artifact(tag, (*layers, described), manifest)


def _files(folder: Path, release: Release) -> Iterator[Blob]:
    """The release's files. An empty one is no layer."""
    for file in release.files:
        if file.size:
            read = _later(_file, folder, release, file.path)
            yield Blob(file.sha256, file.size, oci.layer_type(file.path), file.path, read)


def _signed(repository: Repository, releases: Sequence[Release]) -> Iterator[Blob]:
    """Metadata, all channels, the releases' manifests, and differences that lead to them."""
    tree, state = repository.tree, repository.state()
    paths = [metadata_path("root", version) for version in tree.versions("root")]
    roles = ("snapshot", "targets", RELEASES, ROLLOUT)
    paths += [metadata_path(name, state.role(name).signed.version) for name in roles]
    paths.append(TIMESTAMP)
    listed = {**state.releases.signed.targets, **state.rollout.signed.targets}
    ids = {release.id for release in releases}
    deltas = [delta for delta in repository.deltas() if delta.release in ids]
    targets = [release_target(name) for name in sorted(ids)]
    targets += [delta_target(delta.base, delta.release) for delta in deltas]
    targets += [path for path in listed if path.startswith("channels/")]
    paths += [target_path(path, listed[path].hashes["sha256"]) for path in targets]
    for path in paths:
        yield _blob(oci.REPOSITORY_FOLDER + path, tree.read(path), oci.REPOSITORY_TYPE)
    for pack in sorted({pack.sha256: pack for delta in deltas for pack in delta.packs}.values(), key=_digest_of):
        path = pack_path(pack.sha256)
        read = _later(_pack, repository.folder, path)
        yield Blob(pack.sha256, pack.size, oci.REPOSITORY_TYPE, oci.REPOSITORY_FOLDER + path, read)


def _digest_of(pack: Pack) -> str:
    return pack.sha256


def _config(release: Release, layers: Sequence[Blob], facts: Mapping[str, str]) -> bytes:
    """The ModelPack configuration (model-spec, docs/config.md). `facts`: family, licence, precision, quantization."""
    descriptor: dict[str, object] = {"name": release.name, "version": release.version}
    if "family" in facts:
        descriptor["family"] = facts["family"]
    if "licence" in facts:
        descriptor["licenses"] = [facts["licence"]]
    config = {"architecture": "transformer", "format": "onnx"}
    config |= {key: facts[key] for key in ("precision", "quantization") if key in facts}
    layered = {"type": "layers", "diffIds": [f"sha256:{layer.sha256}" for layer in layers]}
    return msgspec.json.encode({"descriptor": descriptor, "config": config, "modelfs": layered})


def _facts(folder: Path, release: Release) -> Mapping[str, str]:
    """What the bundle says of itself, in ModelPack's words."""
    if release.kind != "model":
        return {}
    raw = b"".join(_file(folder, release, contract.MANIFEST_FILE))
    bundle = parse_bundle(raw, path=release.id)
    facts = {"family": bundle.arch.model_type, "precision": bundle.quant.precision, "quantization": bundle.quant.method}
    return facts | ({"licence": bundle.source.licence} if bundle.source.licence else {})


# --- bytes ------------------------------------------------------------------------------------


def _blob(path: str, data: bytes, media_type: str) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data), media_type, path, lambda: iter((data,)))


def _later(read: Callable[..., Iterator[bytes]], *arguments: object) -> Open:
    return lambda: read(*arguments)


def _file(folder: Path, release: Release, path: str) -> Iterator[bytes]:
    """A file's bytes, put together from its packs."""
    file = next(file for file in release.files if file.path == path)
    for chunk in file.chunks:
        yield read_chunk(folder, place_of(chunk, release.packs), chunk.size, chunk.sha256)


def _pack(folder: Path, path: str) -> Iterator[bytes]:
    try:
        yield (folder / path).read_bytes()
    except OSError as error:
        raise PublishError(f"{folder / path}: {error.strerror or error}") from error

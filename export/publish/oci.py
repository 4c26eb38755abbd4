"""Pushing a release into an OCI registry: what is not there yet, then the manifest, which the tag points at last.

The API is the OCI distribution specification's (v1.1): HEAD and POST/PUT of blobs, PUT of a manifest. User name and
password come from the environment (EDGEKIT_REGISTRY_USER, EDGEKIT_REGISTRY_PASSWORD).
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec
import urllib3

from edgekit import contract
from edgekit.errors import PublishError
from edgekit.manifest import parse as parse_bundle
from edgekit.release import oci
from edgekit.release.manifest import Release
from edgekit.release.names import RELEASES, ROLLOUT, delta_target, pack_path, release_target, target_path
from edgekit.release.oci import Reference
from export.publish.packing import place_of, read_chunk
from export.publish.repository import Repository
from export.publish.tree import TIMESTAMP, metadata_path

_TIMEOUT = urllib3.Timeout(connect=20, read=120)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_NO_RETRY = urllib3.Retry(0, redirect=0)
_MOST_ANSWER_BYTES = 1 << 20

DELEGATED = (RELEASES, ROLLOUT)

Open = Callable[[], Iterator[bytes]]
"""Begins to read a blob's bytes."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer: its digest, size and bytes, its media type, and the path it has as a model's or a repository's file."""

    sha256: str
    size: int
    media_type: str
    path: str
    read: Open

    @property
    def descriptor(self) -> dict[str, object]:
        """As the manifest has it."""
        key = oci.TITLE if self.media_type == oci.REPOSITORY_TYPE else oci.FILE_PATH
        return {
            "mediaType": self.media_type,
            "digest": f"sha256:{self.sha256}",
            "size": self.size,
            "annotations": {key: self.path},
        }


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was done: the manifest's digest, bytes that went over the network, and bytes that were there already."""

    digest: str
    sent_bytes: int
    present_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Of a registry's user; empty for nobody."""

    user: str = ""
    password: str = ""


def repository_blob(path: str, data: bytes) -> Blob:
    """A file of the signed repository as a layer."""
    return Blob(hashlib.sha256(data).hexdigest(), len(data), oci.REPOSITORY_TYPE, path, lambda: iter((data,)))


def file_blobs(release: Release, read: Callable[[str], Iterator[bytes]]) -> Iterator[Blob]:
    """The release's files as layers; `read` begins to read one by its path. An empty one is none."""
    for file in release.files:
        if file.size:
            yield Blob(file.sha256, file.size, oci.layer_type(file.path), file.path, _later(read, file.path))


def _later(read: Callable[[str], Iterator[bytes]], path: str) -> Open:
    return lambda: read(path)


def config_of(release: Release, layers: Sequence[Blob], facts: Mapping[str, str]) -> bytes:
    """The ModelPack configuration. `facts` are family, licence, precision and size, as far as they are known."""
    descriptor: dict[str, object] = {"name": release.name, "version": release.version}
    if "family" in facts:
        descriptor["family"] = facts["family"]
    if "licence" in facts:
        descriptor["licenses"] = [facts["licence"]]
    config = {"architecture": "transformer", "format": "onnx"}
    config |= {key: facts[key] for key in ("paramSize", "precision", "quantization") if key in facts}
    layered = {"type": "layers", "diffIds": [f"sha256:{layer.sha256}" for layer in layers]}
    return msgspec.json.encode({"descriptor": descriptor, "config": config, "modelfs": layered})


def push(
    reference: Reference,
    layers: Sequence[Blob],
    config: bytes,
    *,
    credentials: Credentials = Credentials(),
    tell: Callable[[int], None] = lambda _: None,
) -> Pushed:
    """Push everything that is not there, and then point the tag at it. `tell` hears of bytes. Raises PublishError."""
    registry = Registry(reference, credentials)
    sent = present = 0
    described = Blob(hashlib.sha256(config).hexdigest(), len(config), oci.CONFIG_TYPE, "", lambda: iter((config,)))
    for blob in dict.fromkeys((*layers, described)):
        if registry.has(blob.sha256):
            present += blob.size
        else:
            registry.upload(blob)
            sent += blob.size
        tell(blob.size)
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST_TYPE,
            "artifactType": oci.ARTIFACT_TYPE,
            "config": {
                "mediaType": oci.CONFIG_TYPE,
                "digest": f"sha256:{described.sha256}",
                "size": described.size,
            },
            "layers": [layer.descriptor for layer in layers],
        }
    )
    if len(manifest) > oci.MAX_MANIFEST_BYTES:
        raise PublishError(f"a manifest of {len(manifest):,} bytes is more than registries take")
    registry.tag(manifest)
    return Pushed(f"sha256:{hashlib.sha256(manifest).hexdigest()}", sent, present)


def push_release(
    repository: Repository,
    release: Release,
    reference: Reference,
    *,
    credentials: Credentials = Credentials(),
    tell: Callable[[int], None] = lambda _: None,
) -> Pushed:
    """Push a release that is published in `repository`: its files, and all that a device needs to trust them.

    What is there already is not sent again, so that doing it anew after a refresh costs a few kilobytes. Raises
    PublishError.
    """
    signed = tuple(_signed(repository, release))
    files = tuple(file_blobs(release, lambda path: _file(repository.folder, release, path)))
    manifest = _bundle_facts(repository.folder, release)
    layers = (*files, *signed)
    return push(reference, layers, config_of(release, layers, manifest), credentials=credentials, tell=tell)


def _signed(repository: Repository, release: Release) -> Iterator[Blob]:
    """Metadata, the release's manifest, all channels, and differences that lead to it."""
    tree, state = repository.tree, repository.state()
    paths = [metadata_path("root", version) for version in tree.versions("root")]
    paths += [metadata_path(name, state.role(name).signed.version) for name in ("snapshot", "targets", *DELEGATED)]
    paths.append(TIMESTAMP)
    listed = {**state.releases.signed.targets, **state.rollout.signed.targets}
    deltas = [delta for delta in repository.deltas() if delta.release == release.id]
    targets = [release_target(release.id), *(delta_target(delta.base, delta.release) for delta in deltas)]
    targets += [path for path in listed if path.startswith("channels/")]
    paths += [target_path(path, listed[path].hashes["sha256"]) for path in targets]
    paths += sorted({pack_path(pack.sha256) for delta in deltas for pack in delta.packs})
    yield from (repository_blob(path, tree.read(path)) for path in paths)


def _file(folder: Path, release: Release, path: str) -> Iterator[bytes]:
    """A file's bytes, put together from its packs."""
    file = next(file for file in release.files if file.path == path)
    for chunk in file.chunks:
        yield read_chunk(folder, place_of(chunk, release.packs), chunk.size, chunk.sha256)


def _bundle_facts(folder: Path, release: Release) -> Mapping[str, str]:
    """What the bundle says of itself, in ModelPack's words."""
    if release.kind != "model":
        return {}
    raw = b"".join(_file(folder, release, contract.MANIFEST_FILE))
    bundle = parse_bundle(raw, path=release.id)
    facts = {"family": bundle.arch.model_type, "precision": bundle.quant.precision, "quantization": bundle.quant.method}
    return facts | ({"licence": bundle.source.licence} if bundle.source.licence else {})


class Registry:
    """One repository of a registry, for writing."""

    def __init__(self, reference: Reference, credentials: Credentials) -> None:
        self._reference = reference
        self._credentials = credentials
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=_NO_RETRY)
        self._authorization: str | None = None

    def has(self, sha256: str) -> bool:
        """Whether a blob is there."""
        answer = self._ask("HEAD", f"{self._reference.url}blobs/sha256:{sha256}", allowed=(200, 404))
        return answer.status == 200

    def upload(self, blob: Blob) -> None:
        """Send a blob in one piece, and have the registry hold it against its digest."""
        begun = self._ask(
            "POST", f"{self._reference.url}blobs/uploads/", allowed=(202,), headers={"Content-Length": "0"}
        )
        place = urljoin(self._reference.url, begun.headers.get("Location", ""))
        if urlsplit(place).netloc != urlsplit(self._reference.url).netloc:
            raise PublishError(f"{self._reference.host} wants bytes to be sent to another host")
        address = f"{place}{'&' if urlsplit(place).query else '?'}{urlencode({'digest': f'sha256:{blob.sha256}'})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        self._ask("PUT", address, allowed=(201,), headers=headers, body=blob.read)

    def tag(self, manifest: bytes) -> None:
        """Point the tag at a manifest."""
        address = f"{self._reference.url}manifests/{self._reference.tag}"
        headers = {"Content-Type": oci.MANIFEST_TYPE}
        self._ask("PUT", address, allowed=(201,), headers=headers, body=lambda: iter((manifest,)))

    def _ask(
        self,
        method: str,
        url: str,
        *,
        allowed: Iterable[int],
        headers: Mapping[str, str] | None = None,
        body: Open | None = None,
    ) -> urllib3.BaseHTTPResponse:
        answer = self._once(method, url, headers or {}, body)
        if answer.status == 401:
            self._authorization = self._authorize(answer.headers.get("WWW-Authenticate", ""))
            answer = self._once(method, url, headers or {}, body)
        if answer.status not in allowed:
            said = answer.data[:300].decode(errors="replace")
            raise PublishError(f"{self._reference.host} answered {answer.status} to {method}: {said}")
        return answer

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Open | None) -> urllib3.BaseHTTPResponse:
        sent = dict(headers) | ({"Authorization": self._authorization} if self._authorization else {})
        try:
            return self._pool.request(method, url, headers=sent, body=body() if body else None, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise PublishError(f"{self._reference.host}: {error}") from error

    def _authorize(self, challenge: str) -> str:
        """What to send along, after the registry asked who we are (RFC 6750; distribution's token specification)."""
        scheme, _, rest = challenge.partition(" ")
        basic = base64.b64encode(f"{self._credentials.user}:{self._credentials.password}".encode()).decode()
        if scheme.lower() == "basic" and self._credentials.user:
            return f"Basic {basic}"
        wanted = dict(_CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or not wanted.get("realm", "").startswith(("https://", "http://localhost")):
            raise PublishError(f"{self._reference.host} asks for a user: set EDGEKIT_REGISTRY_USER and its password")
        query = urlencode(
            {"service": wanted.get("service", ""), "scope": f"repository:{self._reference.name}:pull,push"}
        )
        headers = {"Authorization": f"Basic {basic}"} if self._credentials.user else {}
        try:
            answer = self._pool.request("GET", f"{wanted['realm']}?{query}", headers=headers, preload_content=False)
            found = msgspec.json.decode(answer.read(_MOST_ANSWER_BYTES))
            token = found.get("token") or found["access_token"]
        except (urllib3.exceptions.HTTPError, msgspec.DecodeError, KeyError, AttributeError) as error:
            raise PublishError(f"{self._reference.host} gives no token: {error}") from error
        return f"Bearer {token}"

"""Signing requests: metadata that goes to where a key is, and comes back signed.

A JSON file of at most 16 MiB: `format`, `role` ("root" or "releases"), `metadata` (TUF's, as text, with the signatures
that it has so far), and `delegator`: the root or targets metadata that says whose signatures count. Whoever signs
is shown what it says, read from the metadata itself; a repository need not be at hand.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from tuf.api.metadata import Metadata, Root, Targets

from edgekit.errors import UsageError
from edgekit.release.names import RELEASES
from export.publish import metadata
from export.publish.keys import Keyring, shown
from export.publish.metadata import State
from export.publish.rotation import missing, sign_root

FORMAT = 1
MAX_REQUEST_BYTES = 16 << 20


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as a record; see the module's text for each field."""

    format: int
    role: Literal["root", "releases"]
    metadata: str
    delegator: str

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def parse(raw: bytes, *, path: str) -> Request:
    """Read a request; `path` only names it in errors. Raises UsageError."""
    if len(raw) > MAX_REQUEST_BYTES:
        raise UsageError(f"{path} is larger than {MAX_REQUEST_BYTES:,} bytes.")
    try:
        found = msgspec.json.decode(raw, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no signing request: {error}"[:1000]) from error
    if found.format != FORMAT:
        raise UsageError(f"{path} has format {found.format}, and this version reads {FORMAT}.")
    return found


def read(path: Path) -> Request:
    """A request in a file. Raises UsageError."""
    try:
        with path.open("rb") as stream:
            return parse(stream.read(MAX_REQUEST_BYTES + 1), path=str(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}.") from error


def for_root(state: State, new: Metadata[Root]) -> Request:
    """A root that lacks signatures."""
    return Request(format=FORMAT, role="root", metadata=_text(new), delegator=_text(state.root))


def for_releases(state: State, new: Metadata[Targets]) -> Request:
    """A list of releases that is not signed yet."""
    return Request(format=FORMAT, role="releases", metadata=_text(new), delegator=_text(state.targets))


def root_of(request: Request) -> Metadata[Root]:
    """The root in a request. Raises PublishError if it has none."""
    return metadata.parse(request.metadata.encode(), Root, name="the signing request")


def releases_of(request: Request) -> Metadata[Targets]:
    """The list of releases in a request. Raises PublishError if it has none."""
    return metadata.parse(request.metadata.encode(), Targets, name="the signing request")


def sign(request: Request, keyring: Keyring) -> tuple[Request, int]:
    """Add the signatures of those keys that are at hand. The request, and how many signatures it still lacks.

    Raises KeyUnavailable or PublishError.
    """
    if request.role == "root":
        new = root_of(request)
        lacking = sign_root(_old_root(request), new, keyring)
        return msgspec.structs.replace(request, metadata=_text(new)), lacking
    releases = releases_of(request)
    targets = metadata.parse(request.delegator.encode(), Targets, name="the signing request").signed
    metadata.sign(releases, metadata.authority(RELEASES, Root(), targets), keyring)
    found = targets.get_verification_result(RELEASES, releases.signed_bytes, releases.signatures)
    return msgspec.structs.replace(request, metadata=_text(releases)), found.missing


def _old_root(request: Request) -> Root:
    return metadata.parse(request.delegator.encode(), Root, name="the signing request").signed


def said(request: Request) -> Iterator[str]:
    """What whoever signs this says, in lines."""
    if request.role == "root":
        yield from _said_root(root_of(request).signed, missing(_old_root(request), root_of(request)))
        return
    releases = releases_of(request).signed
    yield f"list of releases, version {releases.version}, good until {releases.expires:%Y-%m-%d}"
    for path, target in releases.targets.items():
        yield f"  {target.custom['sequence']:>5}  {path}  sha256 {target.hashes['sha256']}"
    for model, sequence in releases.unrecognized_fields.get(metadata.FLOORS, {}).items():
        yield f"  floor of {model}: {sequence}"


def _said_root(root: Root, lacking: int) -> Iterator[str]:
    yield f"root, version {root.version}, good until {root.expires:%Y-%m-%d}; it lacks {lacking} signatures"
    for name, role in root.roles.items():
        yield f"  {name}: {role.threshold} of {', '.join(shown(keyid) for keyid in role.keyids)}"


def _text(one: Metadata[Any]) -> str:
    return one.to_bytes().decode()

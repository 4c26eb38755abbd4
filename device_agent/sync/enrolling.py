"""The first time: what a device trusts from then on, by its owner's file, or by what a repository shows."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from device_agent.sync.composing import trust_of
from device_agent.sync.identity import Identity, enrol, read_identity
from device_agent.sync.records import Clock, LinkSettings, Stop
from device_agent.sync.settings import channels_of
from device_agent.sync.transport import open_source
from device_agent.sync.transport.address import shown
from device_agent.sync.transport.open import scheme_of
from edgekit.errors import TrustLost, UsageError
from edgekit.release.provisioning import FORMAT, Provisioning

FIRST_ROOT = "metadata/1.root.json"
MAX_ROOT_BYTES = 512 << 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Found:
    """What a repository shows of itself. `fingerprint` is the SHA-256 of its first root, for people to compare."""

    provisioning: Provisioning
    fingerprint: str


def trust_on_first_use(repositories: Sequence[str], channels: Sequence[str], *, stop: Stop, clock: Clock) -> Found:
    """A provisioning of the keys that the first of these repositories shows. Nothing is kept yet.

    Only for a folder, https or this machine: over anything else, whoever is on the way chooses the keys. Raises
    UsageError for those, Unreachable, CorruptRelease.
    """
    for repository in repositories:
        if not _may_be_believed(repository):
            where = shown(repository)
            raise UsageError(f"{where} cannot be trusted at first sight: enrol this device by `edgekit enrol FILE`.")
    with closing(open_source(repositories, settings=LinkSettings(), stop=stop, clock=clock)) as source:
        raw = source.read(FIRST_ROOT, limit=MAX_ROOT_BYTES)
    try:
        root = raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown(repositories[0])} has no root metadata that can be read.") from error
    told = Provisioning(
        format=FORMAT,
        root=root,
        repositories=tuple(_lasting(repository) for repository in repositories),
        channels=channels_of(channels) or ("stable",),
    )
    return Found(told, hashlib.sha256(raw).hexdigest())


def _may_be_believed(repository: str) -> bool:
    scheme = scheme_of(repository)
    if scheme == "http":
        return urlsplit(repository).hostname in _LOOPBACK
    return scheme in ("", "https", "file", "oci")  # a registry is asked by https, but on this machine itself


def _lasting(repository: str) -> str:
    """As it can be found from any folder later."""
    return str(Path(repository).absolute()) if not scheme_of(repository) else repository


def enrolled(
    home: Path, told: Provisioning, *, device_id: str | None, labels: Mapping[str, str], clock: Clock
) -> Identity:
    """Keep it. What was trusted before goes on unless it is lost, or another root counts now.

    Who calls holds the lock. Raises UsageError, StorageFailed.
    """
    before = _root_before(home)
    identity = enrol(home, told, device_id=device_id, labels=labels)
    trust = trust_of(home, identity, clock=clock)
    if before is not None and before != told.root:
        trust.reset()
        return identity
    try:
        trust.last()
    except TrustLost:
        trust.reset()
    return identity


def _root_before(home: Path) -> str | None:
    """The root that the device was told last; "" if nobody can tell."""
    try:
        identity = read_identity(home)
    except TrustLost:
        return ""
    return None if identity is None else identity.provisioning.root

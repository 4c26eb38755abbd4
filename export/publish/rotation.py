"""Changing which keys count.

Root says who signs everything but releases and rollout, and targets says who signs those two; the key of `releases`
signs targets too. So a stolen key of any role is replaced by root's, and a stolen rollout key by that of `releases`.
A new root is signed by as many of the old root's keys as its threshold says, and of the new one's.

Whoever holds them need not meet: a root that lacks signatures is written to a file (`requests`), which goes round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root

from edgekit.errors import PublishError
from edgekit.release.names import RELEASES, ROLLOUT
from export.publish import metadata
from export.publish.keys import SIGNS, Holder, Keyring, shown
from export.publish.metadata import Authority, State
from export.publish.repository import Published, Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What is to be different about a holder's keys; nothing at all renews root."""

    holder: Holder = "root"
    add: tuple[Key, ...] = ()
    remove: frozenset[str] = frozenset()
    threshold: int | None = None


def proposed(state: State, edit: Edit, *, now: float) -> Metadata[Root]:
    """The next root, not signed. Pure. Raises PublishError if it could never be signed, or names a key that is none."""
    new = metadata.successor(state.root, "root", version=state.root.signed.version + 1, now=now)
    root = new.signed
    for name in set(SIGNS[edit.holder]) & set(root.roles):
        role = root.roles[name]
        for keyid in edit.remove:
            if keyid not in role.keyids:
                raise PublishError(f"{shown(keyid)} is no key of {edit.holder}")
            root.revoke_key(keyid, name)
        for key in edit.add:
            root.add_key(key, name)
        role.threshold = edit.threshold or role.threshold
        if not 1 <= role.threshold <= len(role.keyids):
            raise PublishError(f"{role.threshold} of {len(role.keyids)} keys of {edit.holder} cannot be asked for")
    return new


def missing(old: Root, new: Metadata[Root]) -> int:
    """How many signatures a new root still lacks."""
    found = new.signed.get_root_verification_result(old, new.signed_bytes, new.signatures)
    return max(found.first.missing, found.second.missing)


def sign_root(old: Root, new: Metadata[Root], keyring: Keyring) -> int:
    """Add the signatures of those keys that are at hand. How many are still lacking. Raises KeyUnavailable."""
    for root in (old, new.signed):
        metadata.sign(new, metadata.authority("root", root, None), keyring)
    return missing(old, new)


def install(repository: Repository, root: Metadata[Root], keyring: Keyring, *, now: float) -> Published:
    """Publish a root that has its signatures, with whatever has to be signed anew because of it.

    Raises PublishError if it has not, or does not follow the one that counts now; KeyUnavailable.
    """
    with repository.writing():
        state = repository.state()
        old = state.root.signed
        if root.signed.version != old.version + 1:
            raise PublishError(f"root {root.signed.version} does not follow root {old.version}, which counts now")
        if lacking := missing(old, root):
            raise PublishError(f"root {root.signed.version} lacks {lacking} signatures")
        new: dict[str, Metadata[Any]] = {}
        who = metadata.authority("targets", root.signed, None)
        if who != metadata.authority("targets", old, None):
            new = _delegated(repository, state, {RELEASES: who}, now)
        return repository.finish(state, new, keyring, now=now, root=root)


def rotate_rollout(repository: Repository, keys: Sequence[Key], keyring: Keyring, *, now: float) -> Published:
    """Only these keys sign rollouts from now on. Raises KeyUnavailable: the key of `releases` says so."""
    with repository.writing():
        state = repository.state()
        new = _delegated(repository, state, {ROLLOUT: Authority(tuple(keys), 1)}, now)
        return repository.finish(state, new, keyring, now=now)


def _delegated(
    repository: Repository, state: State, changed: dict[str, Authority], now: float
) -> dict[str, Metadata[Any]]:
    """Targets that delegates to other keys, and what those have to sign anew."""
    targets = state.targets.signed
    authorities = {name: metadata.authority(name, state.root.signed, targets) for name in (RELEASES, ROLLOUT)}
    new: dict[str, Metadata[Any]] = {
        name: metadata.successor(state.role(name), name, version=repository.tree.free_version(name), now=now)
        for name in ("targets", *changed)
    }
    new["targets"].signed.delegations = metadata.delegations({**authorities, **changed})
    return new

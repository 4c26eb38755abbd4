"""Who this device is: its id, its secret, its labels, and what it was told to trust. Kept in sync/device.json, 0600.

The id decides in which part of a rollout the device is, so it is kept for life. It is random and says nothing about
the machine: a serial number would follow its owner into every report.
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgekit.errors import StorageFailed, TrustLost, UsageError
from edgekit.files import fsync_folder, write_durably
from edgekit.release.channel import Device, Label
from edgekit.release.provisioning import MAX_PROVISIONING_BYTES, Provisioning
from edgekit.release.reports import FORMAT as ENROLMENT_FORMAT
from edgekit.release.reports import SECRET_BYTES, DeviceId, Enrolment, Secret, device_problem

FORMAT = 1
FOLDER, FILE, DAMAGED = "sync", "device.json", "device.json.damaged"

_ID_BYTES = 16
_MAX_BYTES = 2 * MAX_PROVISIONING_BYTES
_PRIVATE = 0o600
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An enrolled device. `secret` authenticates its reports and is shown to nobody but its owner."""

    device: Device
    provisioning: Provisioning
    secret: bytes = field(repr=False)

    def enrolment(self) -> Enrolment:
        """What the build machine has to know to believe this device's reports. Holds the secret."""
        labels = dict(self.device.labels)
        return Enrolment(format=ENROLMENT_FORMAT, device=self.device.id, secret=self.secret.hex(), labels=labels)


class _Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `labels` are those given on this device, which count more than the provisioning file's."""

    format: int
    device: DeviceId
    secret: Secret
    labels: dict[Label, Label]
    provisioning: Provisioning


def enrol(home: Path, provisioning: Provisioning, *, device_id: str | None, labels: Mapping[str, str]) -> Identity:
    """Remember what this device is to trust. Enrolled again it keeps its id, its secret and the labels given here.

    `labels` are added to those given here before; an empty value takes one away. A file that is damaged is put aside,
    and the device gets a new id and secret. Its caller holds the updater's lock.

    Raises:
        UsageError: The id or a label cannot be one, or the device has another id already.
        StorageFailed: Nothing can be written there.
    """
    if device_id is not None and (problem := device_problem(device_id)):
        raise UsageError(f"{device_id!r} cannot be a device's id: {problem}.")
    path = home / FOLDER / FILE
    try:
        before = _before(path)
        if before is not None and device_id not in (None, before.device):
            raise UsageError(f"this device is called {before.device} already, and keeps that id for life.")
        kept = _kept(before, provisioning, device_id, labels)
        _make_folder(home)
        write_durably(path, msgspec.json.encode(kept, order="deterministic") + b"\n", mode=_PRIVATE)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}") from error
    return _identity(kept)


def read_identity(home: Path) -> Identity | None:
    """Who this device is; None if it was never enrolled. Raises TrustLost for a damaged file, StorageFailed."""
    path = home / FOLDER / FILE
    try:
        kept = _read(path)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}") from error
    return None if kept is None else _identity(kept)


def _identity(kept: _Kept) -> Identity:
    labels = kept.provisioning.labels | kept.labels
    return Identity(
        device=Device(id=kept.device, labels=labels),
        provisioning=kept.provisioning,
        secret=bytes.fromhex(kept.secret),
    )


def _kept(before: _Kept | None, provisioning: Provisioning, device_id: str | None, labels: Mapping[str, str]) -> _Kept:
    given = {**({} if before is None else before.labels), **labels}
    try:
        own = msgspec.convert({label: value for label, value in given.items() if value}, dict[Label, Label])
    except msgspec.ValidationError as error:
        raise UsageError(f"a label cannot be so: {error}") from error
    return _Kept(
        format=FORMAT,
        device=before.device if before else device_id or secrets.token_hex(_ID_BYTES),
        secret=before.secret if before else secrets.token_hex(SECRET_BYTES),
        labels=own,
        provisioning=provisioning,
    )


def _before(path: Path) -> _Kept | None:
    """What was enrolled here, if it can still be read."""
    try:
        return _read(path)
    except TrustLost as error:
        _log.warning("%s It is put aside as %s; this device gets a new id and secret.", error, DAMAGED)
        path.replace(path.with_name(DAMAGED))
        return None


def _read(path: Path) -> _Kept | None:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        kept = msgspec.json.decode(raw, type=_Kept) if len(raw) <= _MAX_BYTES else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        kept = None  # and not the parser's words: they may repeat what it read, and the secret is in there
    if kept is None or kept.format != FORMAT or device_problem(kept.device):
        raise TrustLost(f"{path} is damaged, or of another version.")
    return kept


def _make_folder(home: Path) -> None:
    """EDGEKIT_HOME/sync, durably there before anything is in it."""
    is_new = not home.exists()
    (home / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    fsync_folder(home)  # also if it was there: who made it may have been killed before this line
    if is_new:
        fsync_folder(home.parent)

"""Provisioning: what a device is told, by a way that its owner trusts, before it trusts any repository.

A JSON file of at most 1 MiB that `edgekit repo provision` writes and `edgekit enrol` reads:

    format        1
    root          the repository's root metadata (TUF), as text: the keys that count
    floors        lowest sequence of each model that may run, as signed today; without it a new device would believe an
                  old list of releases that somebody who stole only the build machine's keys may still show it
    repositories  where to look, the first that works counts: https://..., oci://..., or a folder
    channels      which channels to follow
    labels        what to call this device, for rollouts
    report        where to send reports: a URL (HTTP PUT) or a folder; none: nowhere
"""

from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated

import msgspec

from edgekit.errors import UsageError
from edgekit.manifest import Name
from edgekit.release.channel import Label
from edgekit.release.names import ChannelName

FORMAT = 1
MAX_PROVISIONING_BYTES = 1 << 20

SCHEMES = ("https", "http", "oci", "file")
"""How a repository may be reached; else it is a folder, or a .tar file."""

Sequence = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Provisioning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The file as a record; see the module's text for each field."""

    format: int
    root: Annotated[str, msgspec.Meta(max_length=512 << 10)]
    floors: dict[Name, Sequence] = {}
    repositories: tuple[str, ...] = ()
    channels: tuple[ChannelName, ...] = ("stable",)
    labels: dict[Label, Label] = {}
    report: str | None = None

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"


def check_place(text: str) -> None:
    """Raises UsageError for what no device could look at: another scheme, or a path that depends on where one is."""
    scheme, mark, _ = text.partition("://")
    if mark and len(scheme) > 1:
        if scheme.lower() not in SCHEMES:
            ways = ", ".join(f"{known}://" for known in SCHEMES)
            raise UsageError(f"{text}: devices reach a repository by {ways}, a folder or a .tar file.")
    elif not (PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()):
        raise UsageError(f"{text!r} is a path that depends on where one is: say it in full, or give a URL.")


def parse(raw: bytes, *, path: str) -> Provisioning:
    """Read a provisioning file; `path` only names it in errors. Raises UsageError."""
    if len(raw) > MAX_PROVISIONING_BYTES:
        raise UsageError(f"{path} is larger than {MAX_PROVISIONING_BYTES:,} bytes.")
    try:
        found = msgspec.json.decode(raw, type=Provisioning)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no provisioning file: {error}"[:1000]) from error
    if found.format != FORMAT:
        raise UsageError(f"{path} has format {found.format}, and this version reads {FORMAT}.")
    return found

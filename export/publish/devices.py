"""The fleet as the build machine knows it: who was enrolled, and the last report of each that it believes.

A JSON file beside the repository, `<repository>.devices.json`, for its owner's eyes only: it holds the devices'
secrets, and is of no use to anybody who only pulls. Reports are files, collected by whatever collects files: a web
server that takes PUT, a shared folder, the `returns/` of sticks that came back. A report counts if its device made it
and its counter is larger than the last one's; everything else is ignored, and counted.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgekit.errors import PublishError
from edgekit.files import locked, write_durably
from edgekit.release.channel import Device, Label
from edgekit.release.reports import (
    MAX_REPORT_BYTES,
    SUFFIX,
    DeviceId,
    Enrolment,
    Report,
    Secret,
    check,
    unsealed,
)

FORMAT = 1
MAX_FLEET_BYTES = 1 << 30
RETURNS = "returns"
"""In a repository on a stick: where devices leave their reports."""

_PRIVATE = 0o600

Finding = Literal["new", "known", "replayed", "damaged", "unknown", "forged"]
"""What became of a report: counted now, or before; or ignored, as an older one, as none, as nobody's, as a lie."""


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An enrolled device. `seen_at` is when its last report was first seen here (Unix seconds of this machine)."""

    device: DeviceId
    secret: Secret
    enrolled_at: float
    labels: dict[Label, Label] = {}
    report: Report | None = None
    seen_at: float | None = None

    @property
    def as_device(self) -> Device:
        """As channels ask for it: with the labels that it has now."""
        return Device(id=self.device, labels=self.labels if self.report is None else self.report.labels)


class Fleet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as a record, in the order of ids."""

    format: int
    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=1_000_000)] = ()

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.encode(self, order="deterministic") + b"\n"

    def member(self, device: str) -> Member | None:
        """A device, None if it was never enrolled."""
        return next((member for member in self.members if member.device == device), None)

    def having(self, members: Iterable[Member]) -> "Fleet":
        """With these in the place of those of the same ids."""
        by_id = {member.device: member for member in (*self.members, *members)}
        return Fleet(format=FORMAT, members=tuple(by_id[device] for device in sorted(by_id)))

    def without(self, device: str) -> "Fleet":
        """Without a device."""
        return Fleet(format=FORMAT, members=tuple(member for member in self.members if member.device != device))


@dataclass(frozen=True, slots=True)
class Gathered:
    """A fleet after its reports were read, and how many of them were what."""

    fleet: Fleet
    findings: Mapping[Finding, int]

    @property
    def ignored(self) -> int:
        """How many changed nothing and never will."""
        return sum(count for finding, count in self.findings.items() if finding not in ("new", "known"))


def enrolled(fleet: Fleet, enrolment: Enrolment, *, now: float) -> Fleet:
    """With a device, or with its new secret; what it reported before is then forgotten, as that proves nothing now."""
    before = fleet.member(enrolment.device)
    if before is not None and before.secret == enrolment.secret:
        return fleet.having([msgspec.structs.replace(before, labels=enrolment.labels)])
    member = Member(device=enrolment.device, secret=enrolment.secret, enrolled_at=now, labels=enrolment.labels)
    return fleet.having([member])


def gathered(fleet: Fleet, envelopes: Iterable[bytes], *, now: float) -> Gathered:
    """What a heap of reports, in any order, from anybody, tells about a fleet. Pure."""
    members = {member.device: member for member in fleet.members}
    secrets = {device: bytes.fromhex(member.secret) for device, member in members.items()}
    findings: Counter[Finding] = Counter()
    changed: set[str] = set()
    for raw in envelopes:
        report = check(raw, secrets)
        if not isinstance(report, Report):
            findings[report] += 1
            continue
        member = members[report.device]
        finding = _finding(report, member.report)
        findings[finding] += 1
        if finding == "new":
            members[report.device] = msgspec.structs.replace(member, report=report, seen_at=now)
            changed.add(report.device)
    return Gathered(fleet.having(members[device] for device in changed), findings)


def _finding(report: Report, last: Report | None) -> Finding:
    if last is None or report.counter > last.counter:
        return "new"
    return "known" if report == last else "replayed"


def speakers(envelopes: Iterable[bytes], fleet: Fleet) -> tuple[Report, ...]:
    """The newest report of each device that left one in a heap.

    Of an enrolled device only what it signed itself counts. One that is not enrolled is taken at its word: what it says
    that it has decides what is carried to it, and nothing else.
    """
    secrets = {member.device: bytes.fromhex(member.secret) for member in fleet.members}
    found = {member.device: member.report for member in fleet.members if member.report is not None}
    heard: set[str] = set()
    for raw in envelopes:
        opened = unsealed(raw)
        if opened is None or check(raw, secrets) in ("damaged", "forged"):
            continue
        report = opened[1]
        heard.add(report.device)
        if report.device not in found or found[report.device].counter < report.counter:
            found[report.device] = report
    return tuple(found[device] for device in sorted(heard))


# --- files ------------------------------------------------------------------------------------


def default_path(repository: Path) -> Path:
    """Where the fleet of a repository is written down: beside it, never in it."""
    folder = repository.absolute()
    return folder.with_name(f"{folder.name}.devices.json")


class FleetFile:
    """The file at `path`, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Fleet:
        """As it is now. Raises PublishError for a damaged one: to begin anew would forget who is to be believed."""
        try:
            with self.path.open("rb") as stream:
                raw = stream.read(MAX_FLEET_BYTES + 1)
        except FileNotFoundError:
            return Fleet(format=FORMAT)
        except OSError as error:
            raise PublishError(f"{self.path}: {error.strerror or error}") from error
        try:
            fleet = msgspec.json.decode(raw, type=Fleet) if len(raw) <= MAX_FLEET_BYTES else None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            fleet = None  # and not the parser's words: there are secrets in it
        if fleet is None or fleet.format != FORMAT:
            raise PublishError(f"{self.path} is no list of devices, or a damaged one")
        return fleet

    def enrol(self, enrolment: Enrolment, *, now: float) -> Fleet:
        """Add a device. Raises PublishError."""
        return self._changed(lambda fleet: enrolled(fleet, enrolment, now=now))

    def forget(self, device: str) -> Fleet:
        """Take a device out: its reports are nobody's from now on. Raises PublishError if there is none."""
        if self.read().member(device) is None:
            raise PublishError(f"there is no device {device!r} in {self.path}")
        return self._changed(lambda fleet: fleet.without(device))

    def gather(self, folders: Sequence[Path], *, now: float) -> Gathered:
        """Read the reports that lie in folders, and remember what is new. Raises PublishError."""
        found: list[Gathered] = []

        def change(fleet: Fleet) -> Fleet:
            found.append(gathered(fleet, envelopes_in(folders), now=now))
            return found[0].fleet

        self._changed(change)
        return found[0]

    def _changed(self, change: Callable[[Fleet], Fleet]) -> Fleet:
        try:
            with locked(self.path.with_name(f".{self.path.name}.lock")):
                before = self.read()
                after = change(before)
                if after != before:
                    write_durably(self.path, after.to_bytes(), mode=_PRIVATE)
        except OSError as error:
            raise PublishError(f"{self.path}: {error.strerror or error}") from error
        return after


def envelopes_in(folders: Sequence[Path]) -> Iterator[bytes]:
    """Every file of such folders that may be a report, whole; of a stick, those in its `returns`.

    Raises PublishError for a folder that cannot be read. Links, and what is too large, are passed over.
    """
    for folder in folders:
        returns = folder / RETURNS
        place = returns if returns.is_dir() else folder
        try:
            names = sorted(entry.name for entry in os.scandir(place) if entry.name.endswith(SUFFIX))
        except OSError as error:
            raise PublishError(f"{place}: {error.strerror or error}") from error
        yield from (
            raw for name in names if not name.startswith(".") and (raw := _small_file(place / name)) is not None
        )


def _small_file(path: Path) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        # One byte more than a report has: what is larger is seen, and counted as damaged.
        with os.fdopen(handle, "rb", closefd=False) as stream:
            return stream.read(MAX_REPORT_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(handle)

"""What a device says of itself, and how the build machine knows that the device said it.

An envelope is a JSON file of at most 64 KiB, `<device>.json` wherever reports are collected:

    report   a Report as JSON, as text, so that what was authenticated is exactly what is read
    mac      HMAC-SHA-256 (RFC 2104) of that text with the device's secret, 64 hexadecimal digits

The secret is made on the device when it is enrolled and shown to the build machine once, as an Enrolment (`edgekit
enrol --show`). A report's `counter` rises with each one that a device makes: an older one that somebody sends again
changes nothing. There is nothing about people or places in a report but the labels that its owner gave it.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from edgekit.errors import UsageError
from edgekit.release.channel import Label, UnixSeconds
from edgekit.release.names import ChannelName, ReleaseId, unportable

FORMAT = 1
MAX_REPORT_BYTES = 64 << 10
MAX_ENROLMENT_BYTES = 64 << 10
SECRET_BYTES = 32
SUFFIX = ".json"

_MOST_LINES = 100
_MOST_RELEASES = 1000
_MOST_FIGURES = 50

DeviceId = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
"""Also the name of a file, on any file system: see `device_problem`."""

Secret = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Mac = Annotated[str, msgspec.Meta(max_length=64)]
Counter = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
Reason = Annotated[str, msgspec.Meta(max_length=500)]
Word = Annotated[str, msgspec.Meta(max_length=100)]


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device is made of: `platform.system()`, `platform.machine()`, the processor's name, cores, memory."""

    system: Word
    machine: Word
    processor: Word
    cores: Annotated[int, msgspec.Meta(ge=1)]
    memory_bytes: Annotated[int, msgspec.Meta(ge=0, lt=1 << 60)]


class ReportedLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a channel has brought, by release; `soaking`: the trial serves already, and may still fail."""

    channel: ChannelName
    active: ReleaseId | None = None
    previous: ReleaseId | None = None
    trial: ReleaseId | None = None
    soaking: bool = False
    pin: ReleaseId | None = None


class ReportedRefusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release that failed on the device."""

    release: ReleaseId
    channel: ChannelName
    reason: Reason


class ReportedOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the last update of a channel ended."""

    channel: ChannelName
    ending: Literal["installed", "current", "held", "refused", "failed"]
    release: ReleaseId | None = None
    reason: Reason = ""
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a release showed in its trial on this device: numbers by name, such as "decode_tokens_per_s"."""

    release: ReleaseId
    figures: Annotated[dict[Word, float], msgspec.Meta(max_length=_MOST_FIGURES)]


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One report. `at`: Unix seconds by the device's clock; `have`: releases that are whole on its disk."""

    format: int
    device: DeviceId
    counter: Counter
    at: UnixSeconds
    agent: Word
    machine: Machine
    labels: Annotated[dict[Label, Label], msgspec.Meta(max_length=_MOST_LINES)] = {}
    lines: Annotated[tuple[ReportedLine, ...], msgspec.Meta(max_length=_MOST_LINES)] = ()
    refusals: Annotated[tuple[ReportedRefusal, ...], msgspec.Meta(max_length=_MOST_LINES)] = ()
    outcomes: Annotated[tuple[ReportedOutcome, ...], msgspec.Meta(max_length=_MOST_LINES)] = ()
    have: Annotated[tuple[ReleaseId, ...], msgspec.Meta(max_length=_MOST_RELEASES)] = ()
    health: Annotated[tuple[Figures, ...], msgspec.Meta(max_length=_MOST_LINES)] = ()

    def line(self, channel: str) -> ReportedLine:
        """A channel's line, an empty one if it has none."""
        return next((line for line in self.lines if line.channel == channel), ReportedLine(channel=channel))


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A report and what proves it; see the module's text."""

    report: str
    mac: Mac


class Enrolment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a build machine has to know to believe a device's reports. Holds the secret."""

    format: int
    device: DeviceId
    secret: Secret
    labels: Annotated[dict[Label, Label], msgspec.Meta(max_length=_MOST_LINES)] = {}

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"


Flaw = Literal["damaged", "unknown", "forged"]
"""Why a report is ignored: it is not one; its device was never enrolled here; that device did not make it."""


def sealed(report: Report, secret: bytes) -> bytes:
    """The envelope's bytes. Lists that would make it too large are cut; what serves is always in it."""
    while len(raw := _sealed(report, secret)) > MAX_REPORT_BYTES:
        report = msgspec.structs.replace(
            report,
            refusals=report.refusals[: len(report.refusals) // 2],
            outcomes=report.outcomes[: len(report.outcomes) // 2],
            have=report.have[: len(report.have) // 2],
            health=report.health[: len(report.health) // 2],
        )
    return raw


def _sealed(report: Report, secret: bytes) -> bytes:
    text = msgspec.json.encode(report, order="deterministic").decode()
    return msgspec.json.encode(Envelope(text, _mac(text, secret))) + b"\n"


def _mac(text: str, secret: bytes) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def unsealed(raw: bytes) -> tuple[Envelope, Report] | None:
    """What an envelope says, believed by nobody yet (see `check`); None for what is none. Never raises."""
    if len(raw) > MAX_REPORT_BYTES:
        return None
    try:
        envelope = msgspec.json.decode(raw, type=Envelope)
        report = msgspec.json.decode(envelope.report, type=Report)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return None if report.format != FORMAT or device_problem(report.device) else (envelope, report)


def check(raw: bytes, secrets: Mapping[str, bytes]) -> Report | Flaw:
    """The report in an envelope if the device that it names made it. `secrets` by device id. Never raises."""
    found = unsealed(raw)
    if found is None:
        return "damaged"
    envelope, report = found
    secret = secrets.get(report.device)
    if secret is None:
        return "unknown"
    # Bytes: compare_digest refuses text that is not ASCII, and a stranger chose this one.
    return report if hmac.compare_digest(_mac(envelope.report, secret).encode(), envelope.mac.encode()) else "forged"


def device_problem(device_id: str) -> str | None:
    """Why this cannot be a device's id, which is also the name of its reports' file; None if it can."""
    try:
        msgspec.convert(device_id, DeviceId)
    except msgspec.ValidationError:
        return "an id has up to 100 letters, digits, dots, dashes and underscores, and begins with a letter or digit"
    return unportable(device_id + SUFFIX)


def parse_enrolment(raw: bytes, *, path: str) -> Enrolment:
    """Read what a device showed; `path` only names it in errors. Raises UsageError."""
    if len(raw) > MAX_ENROLMENT_BYTES:
        raise UsageError(f"{path} is larger than {MAX_ENROLMENT_BYTES:,} bytes.")
    try:
        found = msgspec.json.decode(raw, type=Enrolment)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # Without the parser's words where they could repeat what it read: there is a secret in it.
        raise UsageError(f"{path} is no enrolment record: {type(error).__name__}") from None
    if found.format != FORMAT:
        raise UsageError(f"{path} has format {found.format}, and this version reads {FORMAT}.")
    if problem := device_problem(found.device):
        raise UsageError(f"{path}: {found.device!r} cannot be a device's id: {problem}.")
    return found

"""Publishing, fetching and installing releases."""

from dataclasses import dataclass

from edgekit.errors.base import EdgekitError


@dataclass(eq=False)
class SyncError(EdgekitError):
    """The update cannot be done: {problem}"""

    problem: str
    exit_code, http_status = 60, 502


@dataclass(eq=False)
class Untrusted(SyncError):
    """The repository is not to be trusted: {problem}"""

    exit_code = 61
    hint = "Nothing was changed. If the repository is the right one, its owner must look at it."


@dataclass(eq=False)
class TrustLost(SyncError):
    """This device cannot tell any more what it trusted before: {problem}"""

    exit_code = 62
    hint = "What is installed runs on. Enrol the device again, with a provisioning file of today: edgekit enrol FILE"


@dataclass(eq=False)
class Unreachable(SyncError):
    """The repository cannot be reached: {problem}"""

    exit_code = 63
    hint = "What was fetched is kept: the next run goes on from there."


@dataclass(eq=False)
class NotInRepository(Unreachable):
    """The repository does not have {problem}"""

    exit_code = 64


@dataclass(eq=False)
class NotAdmitted(Unreachable):
    """The repository does not let this device in: {problem}"""

    exit_code = 76
    hint = "The user name and password are part of its address: https://user:password@host/path, or oci:// likewise."


@dataclass(eq=False)
class CorruptRelease(SyncError):
    """The release is not what was signed: {problem}"""

    exit_code = 65
    hint = "Nothing was installed. Another mirror, or publishing again, may help."


@dataclass(eq=False)
class UnsupportedRelease(CorruptRelease):
    """The release needs a newer edgekit: {problem}"""

    exit_code = 66
    hint = "Update edgekit on this device."


@dataclass(eq=False)
class Refused(SyncError):
    """The release is refused: {problem}"""

    exit_code, http_status = 67, 409


@dataclass(eq=False)
class FailedTrial(Refused):
    """The release failed its trial: {problem}"""

    exit_code = 68
    hint = "The one before it runs on. It is not tried again until the channel names another."


@dataclass(eq=False)
class NoSpace(SyncError):
    """Not enough space at {problem}: {needed_bytes:,} bytes are needed and {free_bytes:,} are free."""

    needed_bytes: int
    free_bytes: int
    exit_code, http_status = 69, 507
    hint = "Free some space. What was fetched is kept: the next run goes on from there."


@dataclass(eq=False)
class Busy(SyncError):
    """Another update is under way: {problem}"""

    exit_code, http_status = 70, 409


@dataclass(eq=False)
class NotEnrolled(SyncError):
    """This device follows no repository: {problem}"""

    exit_code, http_status = 71, 409
    hint = "edgekit enrol FILE, with what `edgekit repo provision` wrote; or edgekit sync --once --repo URL|FOLDER"


@dataclass(eq=False)
class PublishError(SyncError):
    """This cannot be published: {problem}"""

    exit_code = 72


@dataclass(eq=False)
class KeyUnavailable(PublishError):
    """The key cannot be used: {problem}"""

    exit_code = 73
    hint = "Give the folder of keys with --keys; the passphrase is asked for, or read from EDGEKIT_KEY_PASSPHRASE."


@dataclass(eq=False)
class RolloutWaits(SyncError):
    """The rollout waits: {problem}"""

    exit_code = 74
    hint = "Nothing was changed. Gather reports, and run it again later."


@dataclass(eq=False)
class RolloutStopped(SyncError):
    """The rollout does not go on: {problem}"""

    exit_code = 75
    hint = "`edgekit rollout status` says which devices it failed on, and why."

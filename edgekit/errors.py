"""Every error that a person can meet, in one tree.

    EdgekitError                    exit 1    HTTP 500
    |-- UsageError                  exit 2    400   the command line or a setting is wrong
    |   |-- MissingExtra            exit 3    500   a verb needs a part that is not installed
    |   `-- BadTask                 exit 4    400   a file of questions is not one
    |-- CheckpointError             exit 10   500   the source model cannot be read
    |   |-- CheckpointNotFound      exit 11
    |   |-- CorruptCheckpoint       exit 12
    |   |-- UnsupportedCheckpoint   exit 13
    |   |-- UnknownFamily           exit 14
    |   |-- MissingTensor           exit 15
    |   |-- UnexpectedTensor        exit 16
    |   |-- ShapeMismatch           exit 17
    |   `-- AdapterMismatch         exit 18
    |-- ExportError                 exit 20   500   the bundle cannot be made
    |   |-- OutputExists            exit 21
    |   |-- DiskFull                exit 22
    |   |-- VerificationFailed      exit 23
    |   |-- BudgetTooSmall          exit 24
    |   |-- CalibrationTooShort     exit 25
    |   `-- QualityTooLow           exit 26
    |-- BundleError                 exit 30   500   the bundle cannot be used
    |   |-- NotABundle              exit 31
    |   |-- UnsupportedFormat       exit 32
    |   |-- CorruptBundle           exit 33
    |   |-- UnsafePath              exit 34
    |   `-- WrongBase               exit 35
    |-- RequestError                exit 40   400   one request is wrong; the server keeps serving
    |   |-- InvalidRequest          exit 41   400
    |   |-- ContextOverflow         exit 42   400
    |   |-- UnknownModel            exit 43   404
    |   |-- TemplateError           exit 44   400
    |   |-- RequestTooLarge         exit 45   413
    |   |-- RouteError              exit 46   404/403/405/415
    |   |-- Unauthorised            exit 47   401
    |   |-- Forbidden               exit 48   403
    |   `-- QuotaExceeded           exit 49   429
    |-- ServerError                 exit 50   500   the agent cannot serve right now
    |   |-- Overloaded              exit 51   503
    |   |-- ShuttingDown            exit 52   503
    |   |-- AddressInUse            exit 53
    |   `-- StorageFailed           exit 54   503
    `-- SyncError                   exit 60   502   an update cannot be published, fetched or installed
        |-- Untrusted               exit 61         signatures, versions or dates say no
        |-- TrustLost               exit 62         the device's own memory of what it trusts is damaged
        |-- Unreachable             exit 63         no repository answers
        |   `-- NotInRepository     exit 64
        |-- CorruptRelease          exit 65         bytes are not what was signed
        |   `-- UnsupportedRelease  exit 66
        |-- Refused                 exit 67   409   signed and whole, and yet not for this device now
        |   `-- FailedTrial         exit 68   409
        |-- NoSpace                 exit 69   507
        |-- Busy                    exit 70   409   another updater is at work
        |-- NotEnrolled             exit 71   409
        |-- PublishError            exit 72         the repository cannot be written so
        |   `-- KeyUnavailable      exit 73
        |-- RolloutWaits            exit 74         too few devices have reported yet
        `-- RolloutStopped          exit 75         it failed on too many devices

A class's docstring is the sentence that a person reads; its fields fill the blanks. `hint` says
what to do next. Exit 130 is Ctrl-C. Anything that is not an `EdgekitError` is a bug of ours.
"""

import string
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(eq=False)
class EdgekitError(Exception):
    """Something went wrong."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    hint: ClassVar[str] = ""

    def __str__(self) -> str:
        """The sentence: the class docstring with this error's fields filled in."""
        template = " ".join((self.__doc__ or "").split())
        return string.Formatter().vformat(template, (), vars(self))


# --- the command line -----------------------------------------------------------------------


@dataclass(eq=False)
class UsageError(EdgekitError):
    """{problem}"""

    problem: str
    exit_code, http_status, type = 2, 400, "invalid_request_error"
    hint = "Run the command with --help for its options and examples."


@dataclass(eq=False)
class MissingExtra(EdgekitError):
    """`edgekit {verb}` needs a part that is not installed: {missing}.
    Install it with: pip install "edgekit[{extra}]\""""

    verb: str
    missing: str
    extra: str
    exit_code = 3


@dataclass(eq=False)
class BadTask(EdgekitError):
    """The task file {path} cannot be used: {problem}"""

    path: str
    problem: str
    exit_code, http_status, type = 4, 400, "invalid_request_error"
    hint = "One JSON object a line, with the fields of one of the kinds in: edgekit eval --help"


# --- checkpoints ----------------------------------------------------------------------------


@dataclass(eq=False)
class CheckpointError(EdgekitError):
    """The source model cannot be read: {problem}"""

    problem: str
    exit_code = 10


@dataclass(eq=False)
class CheckpointNotFound(CheckpointError):
    """No model at {problem}"""

    exit_code = 11
    hint = "Give a .gguf file, or a folder with config.json and *.safetensors."


@dataclass(eq=False)
class CorruptCheckpoint(CheckpointError):
    """{path} is damaged or not what it claims to be: {problem}"""

    path: str
    exit_code = 12
    hint = "Fetch the file again and compare its checksum with the publisher's."


@dataclass(eq=False)
class UnsupportedCheckpoint(CheckpointError):
    """This checkpoint cannot be exported: {problem}"""

    exit_code = 13


@dataclass(eq=False)
class UnknownFamily(CheckpointError):
    """No exporter for the architecture {problem!r}. Known: {known}."""

    known: str
    exit_code = 14
    hint = "`edgekit families` lists every architecture with the model names it covers."


@dataclass(eq=False)
class MissingTensor(CheckpointError):
    """The checkpoint lacks the tensor {problem!r}, which its configuration requires."""

    exit_code = 15
    hint = "A shard may be missing: compare the folder with the publisher's list of files."


@dataclass(eq=False)
class UnexpectedTensor(CheckpointError):
    """The checkpoint holds a tensor that this architecture does not have: {problem}"""

    exit_code = 16
    hint = "Exporting without it would give another model. Is config.json the right one?"


@dataclass(eq=False)
class ShapeMismatch(CheckpointError):
    """The tensor {problem!r} has the shape {found}, but the configuration says {expected}."""

    found: str
    expected: str
    exit_code = 17
    hint = "config.json (or the GGUF's metadata) belongs to another model."


@dataclass(eq=False)
class AdapterMismatch(CheckpointError):
    """The adapter was not made for this model: {problem}"""

    exit_code = 18
    hint = "base_model_name_or_path in adapter_config.json names the model that it was made for."


# --- export ---------------------------------------------------------------------------------


@dataclass(eq=False)
class ExportError(EdgekitError):
    """The bundle cannot be made: {problem}"""

    problem: str
    exit_code = 20


@dataclass(eq=False)
class OutputExists(ExportError):
    """The output {problem} exists already."""

    exit_code = 21
    hint = "Choose another folder, or remove that one first: an export never overwrites."


@dataclass(eq=False)
class DiskFull(ExportError):
    """Not enough space at {problem}: {needed_bytes:,} bytes are needed and {free_bytes:,} are free."""

    needed_bytes: int
    free_bytes: int
    exit_code = 22
    hint = "Free some space or choose another output folder. Nothing was left behind."


@dataclass(eq=False)
class BudgetTooSmall(ExportError):
    """The bundle cannot be as small as was asked for: {problem}"""

    exit_code = 24
    hint = "Raise --size-budget."


@dataclass(eq=False)
class CalibrationTooShort(ExportError):
    """The calibration text is too short: {problem}"""

    exit_code = 25
    hint = "Give a longer text, or --calibration self."


@dataclass(eq=False)
class QualityTooLow(ExportError):
    """The bundle lost too much quality: {problem}"""

    exit_code = 26
    hint = "Try --method gptq, a smaller --block-size, a larger --size-budget, or --quant int8."


@dataclass(eq=False)
class VerificationFailed(ExportError):
    """The exported model does not compute what the checkpoint says: {problem}"""

    exit_code = 23
    hint = "No bundle was written. Please report this with the model's name."


# --- bundles --------------------------------------------------------------------------------


@dataclass(eq=False)
class BundleError(EdgekitError):
    """The bundle {path} cannot be used: {problem}"""

    path: str
    problem: str
    exit_code = 30


@dataclass(eq=False)
class NotABundle(BundleError):
    """{path} is not a bundle: {problem}"""

    exit_code = 31
    hint = "Make one with: edgekit export MODEL -o FOLDER"


@dataclass(eq=False)
class UnsupportedFormat(BundleError):
    """The bundle {path} needs a newer edgekit: {problem}"""

    exit_code = 32
    hint = "Update edgekit on this machine, or export the model again."


@dataclass(eq=False)
class CorruptBundle(BundleError):
    """The bundle {path} is damaged: {problem}"""

    exit_code = 33
    hint = "Copy or export the bundle again; `edgekit verify` shows every problem."


@dataclass(eq=False)
class UnsafePath(BundleError):
    """The bundle {path} names a file outside its own folder: {problem}"""

    exit_code = 34
    hint = "Do not use this bundle: its files were made by someone else's tool, or tampered with."


@dataclass(eq=False)
class WrongBase(BundleError):
    """The adapter {path} does not belong to this model: {problem}"""

    exit_code = 35
    hint = "Use it beside the bundle that it was made for, or make it again: edgekit adapter export PEFT --base BUNDLE"


# --- requests -------------------------------------------------------------------------------


@dataclass(eq=False)
class RequestError(EdgekitError):
    """The request cannot be served."""

    exit_code, http_status, type = 40, 400, "invalid_request_error"
    param: ClassVar[str | None] = None


@dataclass(eq=False)
class InvalidRequest(RequestError):
    """{problem}"""

    problem: str
    param: str | None = field(default=None, kw_only=True)  # type: ignore[misc]  # known per request only
    exit_code = 41


@dataclass(eq=False)
class ContextOverflow(RequestError):
    """This model's maximum context length is {context_tokens} tokens. However, your messages
    resulted in {prompt_tokens} tokens. Please reduce the length of the messages."""

    prompt_tokens: int
    context_tokens: int
    exit_code, code = 42, "context_length_exceeded"
    param = "messages"


@dataclass(eq=False)
class UnknownModel(RequestError):
    """The model {model!r} does not exist. This agent serves: {known}."""

    model: str
    known: str
    exit_code, http_status, type, code = 43, 404, "not_found_error", "model_not_found"
    param = "model"


@dataclass(eq=False)
class TemplateError(RequestError):
    """The model's chat template refused these messages: {problem}"""

    problem: str
    exit_code = 44
    param = "messages"


@dataclass(eq=False)
class RequestTooLarge(RequestError):
    """The request body is larger than {limit_bytes:,} bytes."""

    limit_bytes: int
    exit_code, http_status = 45, 413


@dataclass(eq=False)
class RouteError(RequestError):
    """{problem}"""

    problem: str
    http_status: int = field(default=404, kw_only=True)  # type: ignore[misc]  # 403, 404, 405 or 415
    exit_code, type = 46, "invalid_request_error"


@dataclass(eq=False)
class Unauthorised(RequestError):
    """{problem}"""

    problem: str
    exit_code, http_status, type, code = 47, 401, "authentication_error", "invalid_api_key"
    hint = "`edgekit keys` lists and makes keys; send one as `Authorization: Bearer KEY`."


@dataclass(eq=False)
class Forbidden(RequestError):
    """{problem}"""

    problem: str
    exit_code, http_status, type, code = 48, 403, "permission_error", "insufficient_scope"


@dataclass(eq=False)
class QuotaExceeded(RequestError):
    """{problem}"""

    problem: str
    retry_after_s: int = 1
    exit_code, http_status, type, code = 49, 429, "rate_limit_error", "rate_limit_exceeded"


# --- the agent ------------------------------------------------------------------------------


@dataclass(eq=False)
class ServerError(EdgekitError):
    """The agent cannot answer: {problem}"""

    problem: str
    exit_code = 50


@dataclass(eq=False)
class Overloaded(ServerError):
    """The agent is busy: {problem}"""

    retry_after_s: int = 1
    exit_code, http_status, code = 51, 503, "overloaded"


@dataclass(eq=False)
class ShuttingDown(ServerError):
    """The agent is stopping: {problem}"""

    exit_code, http_status, code = 52, 503, "shutting_down"


@dataclass(eq=False)
class AddressInUse(ServerError):
    """Cannot listen on {problem}"""

    exit_code = 53
    hint = "Another program uses that port: choose one with --port, or --port 0 for any free one."


@dataclass(eq=False)
class StorageFailed(ServerError):
    """The agent cannot write what it has to keep: {problem}"""

    exit_code, http_status, code = 54, 503, "storage_failed"
    hint = "Free some space on the disk of EDGEKIT_HOME, or see that it may be written."


# --- updates --------------------------------------------------------------------------------


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

"""The command line, and what it is told to read: usage, checkpoints, exports, bundles."""

from dataclasses import dataclass

from edgekit.errors.base import EdgekitError

# --- the command line -----------------------------------------------------------------------


@dataclass(eq=False)
class UsageError(EdgekitError):
    """{problem}"""

    problem: str
    exit_code, http_status, type = 2, 400, "invalid_request_error"
    hint = "Run the command with --help for its options and examples."


@dataclass(eq=False)
class SystemRefused(EdgekitError):
    """The system refuses: {problem}"""

    problem: str
    exit_code = 5
    hint = "See that there is space, and that you may read and write there; --debug shows where it happened."


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

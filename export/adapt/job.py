"""THE MAIN PATH of `edgekit adapter export`: a PEFT folder goes in, a verified adapter beside a bundle comes out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers

from edgekit import adapter as formats
from edgekit import contract, files
from edgekit.adapter import AdapterManifest
from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import UsageError
from edgekit.manifest import FileEntry
from export.adapt import convert, proof
from export.checkpoints.adapter import Adapter
from export.progress import Progress
from export.prompts import PROBE_TEXT, PROBE_TOKENS_OF_LARGE
from export.verify import LARGE_PARAMETERS

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AdapterJob:
    """What to make of which PEFT folder, and beside which bundle; `digits` are those that its numbers keep.

    `name` defaults to the folder's name.
    """

    source: Path
    base: Path
    out: Path
    name: str | None = None
    version: str = "1"
    digits: convert.Digits = "bfloat16"


def export_adapter(job: AdapterJob, progress: Progress) -> AdapterManifest:
    """PEFT folder in, verified adapter out; returns what was written to `adapter.json`.

    Raises UsageError, CheckpointError, BundleError and ExportError subclasses; `job.out` exists only if all went well.
    """
    name, version = _name(job), _checked("--version", job.version)
    base = open_bundle(job.base)
    if base.manifest.task != "generate":
        raise UsageError(f"{job.base} holds an embedding model, which takes no adapters")
    formats.refuse_baseless(base)
    arch = base.manifest.arch
    progress.stage(f"reading {job.source.resolve().name}")
    adapter = Adapter.open(job.source)
    try:
        changes = convert.updates(adapter, arch, job.digits)
        branches = {linear: convert.branch(changes[linear], arch, linear) for linear in changes}
        if job.out.parent.name == contract.ADAPTERS_FOLDER and job.out.parent.parent.is_dir():
            job.out.parent.mkdir(exist_ok=True)
        with files.staging(job.out, needed_bytes=sum(_bytes(each) for each in branches.values())) as folder:
            weights = folder / contract.ADAPTER_WEIGHTS_FILE
            _write(weights, branches)
            report = proof.against_merged(base, weights, changes, probe=_probe(base), step=progress.stage)
            manifest = AdapterManifest(
                format=formats.FORMAT,
                name=name,
                version=version,
                base=formats.Base(
                    name=base.manifest.name,
                    version=base.manifest.version,
                    fingerprint=formats.fingerprint(base),
                ),
                ranks={linear: each.a.shape[1] for linear, each in branches.items()},
                files=(FileEntry(weights.name, weights.stat().st_size, files.sha256_of(weights)),),
                source=job.source.resolve().name,
                quality=report.quality(),
                golden=report.golden,
                licence=base.manifest.source.licence,  # an adapter cannot lift its base's conditions
            )
            (folder / contract.ADAPTER_MANIFEST_FILE).write_bytes(manifest.to_bytes())
            formats.check(formats.open_adapter(folder), base)  # what devices would refuse fails here
            return manifest
    finally:
        adapter.close()


def _write(path: Path, branches: Mapping[str, convert.Branch]) -> None:
    """onnxruntime's adapter format."""
    parameters = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(values)
        for linear, each in branches.items()
        for name, values in zip(contract.lora_names(linear), (each.a, each.b), strict=True)
    }
    made = onnxruntime.AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(1)
    made.set_parameters(parameters)
    made.export_adapter(str(path))


def _bytes(branch: convert.Branch) -> int:
    return branch.a.nbytes + branch.b.nbytes


def _probe(base: Bundle) -> list[int]:
    """Ordinary text in the base's tokens."""
    arch = base.manifest.arch
    tokenizer = tokenizers.Tokenizer.from_file(str(base.path(contract.TOKENIZER_FILE)))
    ids: list[int] = tokenizer.encode(PROBE_TEXT, add_special_tokens=False).ids
    most = arch.context if arch.parameters < LARGE_PARAMETERS else PROBE_TOKENS_OF_LARGE
    return ids[: min(most, arch.context)]


def _name(job: AdapterJob) -> str:
    if job.name is not None:
        return _checked("--name", job.name)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", job.source.resolve().name).strip("._+-")[:200] or "adapter"


def _checked(option: str, value: str) -> str:
    """Raises UsageError for what `edgekit.manifest` would not take as a name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", value):
        raise UsageError(f"{option} {value!r}: use up to 200 letters, digits, dots, dashes and underscores")
    return value

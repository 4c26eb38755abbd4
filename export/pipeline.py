"""THE MAIN PATH of export: a checkpoint goes in, a verified bundle comes out."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from edgekit import contract, files
from edgekit.arch import ModelArch
from edgekit.errors import UsageError
from edgekit.manifest import Manifest, SpecialTokens
from edgekit.quant import Precision
from export import checkpoints, pack, verify
from export.families import Weights, arch_of
from export.graph import decoder
from export.graph.ops import WeightFile
from export.graph.rotary import table_bytes
from export.prompts import prompts_for
from export.quantize import plan as planning


@dataclass(frozen=True)
class ExportJob:
    """What to make of which model, and where. `name` defaults to the source's file name."""

    source: Path
    out: Path
    precision: Precision = "int4"
    name: str | None = None
    version: str = "1"


class Progress(Protocol):
    """Told how far an export is; the command line draws it."""

    def stage(self, title: str) -> None:
        """A new stage begins."""

    def advance(self, done: int, total: int) -> None:
        """`done` of `total` bytes of this stage."""


def export(job: ExportJob, progress: Progress) -> Manifest:
    """Checkpoint in, verified bundle out; returns what was written to `bundle.json`.

    Raises UsageError, CheckpointError and ExportError subclasses; `job.out` exists only if everything went well.
    """
    named = pack.Named(_name(job), _checked("--version", job.version), job.precision)
    with checkpoints.open_checkpoint(job.source) as checkpoint:
        progress.stage(f"reading {checkpoint.file}")
        arch = arch_of(checkpoint)
        weights = Weights(checkpoint, arch)
        text, prompts = checkpoint.text, prompts_for(checkpoint.text, arch)
        tokens = SpecialTokens(eos=text.eos_ids, bos=text.bos_id if text.add_bos else None, pad=text.pad_id)
        plan = planning.plan(arch, job.precision, weights)
        needed = sum(matrix.bytes for matrix in plan.values()) + len(text.tokenizer_json)
        needed += table_bytes(arch.rotary, arch.context)
        with files.staging(job.out, needed_bytes=needed) as folder:
            progress.stage(f"quantising to {job.precision}")
            _write_graph(folder, arch, plan, weights, progress)
            pack.write_text_files(folder, text)
            pack.write_genai_config(folder, arch, tokens)
            report = verify.against_reference(
                folder,
                arch,
                plan,
                weights,
                probe=prompts.probe,
                prompts=prompts.golden,
                eos=tokens.eos,
                step=progress.stage,
            )
            progress.stage("hashing")
            return pack.finish(folder, named, checkpoint, arch, plan, tokens, report)


def _write_graph(folder: Path, arch: ModelArch, plan: planning.Plan, weights: Weights, progress: Progress) -> None:
    total = sum(matrix.bytes for matrix in plan.values())
    done = 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        progress.advance(done, total)

    data = WeightFile(folder / contract.DATA_FILE)
    try:
        model = decoder.build(arch, plan, weights, data, written)
    finally:
        data.close()
    onnx.save(model, str(folder / contract.MODEL_FILE))


def _name(job: ExportJob) -> str:
    """--name, or the source's own made safe for URLs and file systems."""
    if job.name is not None:
        return _checked("--name", job.name)
    plain = job.source.name.removesuffix(".gguf") or job.source.resolve().name
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", plain).strip("._+-")[:200] or "model"


def _checked(option: str, value: str) -> str:
    """A name that `edgekit.manifest` accepts. Raises UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", value):
        raise UsageError(f"{option} {value!r}: use up to 200 letters, digits, dots, dashes and underscores")
    return value

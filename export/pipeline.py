"""THE MAIN PATH of export: a checkpoint goes in, a verified bundle comes out."""

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekit import contract, files
from edgekit.arch import ModelArch
from edgekit.errors import QualityTooLow, UsageError
from edgekit.manifest import Manifest, SpecialTokens
from export import checkpoints, pack, speed, verify
from export.checkpoints import TextFiles
from export.families import arch_of
from export.families.weights import CheckpointWeights, Weights
from export.graph import adapted, decoder, prefill
from export.job import ExportJob
from export.optimum import route
from export.progress import Progress
from export.prompts import prompts_for
from export.quantize import plan as planning
from export.quantize import rotate
from export.quantize.plan import Recipe
from export.quantize.prepare import Prepared, check, prepare


def export(job: ExportJob, progress: Progress) -> Manifest:
    """Checkpoint in, verified bundle out; returns what was written to `bundle.json`.

    Raises UsageError, CheckpointError and ExportError subclasses; `job.out` exists only if everything went well.
    """
    check(job.recipe)
    named = pack.Named(_name(job), _checked("--version", job.version), job.precision)
    with checkpoints.open_checkpoint(job.source, job.adapter) as checkpoint:
        progress.stage(f"reading {checkpoint.file}")
        if task := route.task_of(checkpoint, job.source):
            return route.export(job, named, checkpoint, task, progress)
        arch = arch_of(checkpoint)
        weights = CheckpointWeights(checkpoint, arch)
        arch, turned = rotate.applied(arch, weights, job.recipe)
        text, prompts = checkpoint.text, prompts_for(checkpoint.text, arch)
        tokens = SpecialTokens(eos=text.eos_ids, bos=text.bos_id if text.add_bos else None, pad=text.pad_id)
        with files.staging(job.out, needed_bytes=_needed_bytes(arch, job.recipe, turned, text)) as folder:
            made = _write_graph(folder, arch, turned, job.recipe, text, progress)
            pack.write_text_files(folder, text)
            pack.write_genai_config(folder, arch, tokens)
            report = verify.against_reference(
                folder,
                arch,
                made.plan,
                weights,
                probe=prompts.probe,
                prompts=prompts.golden,
                eos=tokens.eos,
                step=progress.stage,
            )
            _check_quality(report.kl, job.max_kl)
            progress.stage("measuring speed")
            report = replace(report, speed=speed.measure(folder, arch, job.kv))
            progress.stage("hashing")
            return pack.finish(folder, named, checkpoint, arch, made.plan, tokens, report, pack.Use(cache=job.kv))


def _write_graph(
    folder: Path, arch: ModelArch, weights: Weights, recipe: Recipe, text: TextFiles, progress: Progress
) -> Prepared:
    """Calibrate, plan and quantise as far as was asked for, and write the graph."""
    done = 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        progress.advance(done, total)

    with TemporaryDirectory(dir=folder, prefix=".work-") as work:
        made = prepare(arch, weights, recipe, text, Path(work), progress)
        total = sum(matrix.bytes for matrix in made.plan.values())
        progress.stage(f"writing {recipe.precision} weights")
        decoder.save(folder, arch, made.plan, weights, made.quantise, written, made.scales)
        if prefill.possible(made.plan):
            prefill.save(folder, folder / contract.PREFILL_FILE, arch, made.plan)
        if not recipe.rotate:
            adapted.save(folder, arch)
    return made


def _needed_bytes(arch: ModelArch, recipe: Recipe, weights: Weights, text: TextFiles) -> int:
    """Disk space of the bundle, and while it is calibrated of what lies beside it."""
    plan = planning.plan(arch, recipe, weights)
    size = sum(matrix.bytes for matrix in plan.values()) + len(text.tokenizer_json)
    calibrated = recipe.method == "gptq" or recipe.size_budget is not None or recipe.kv == "int8"
    return 3 * size if calibrated else size


def _check_quality(kl: float, limit: float | None) -> None:
    if limit is not None and not kl <= limit:  # a limit that is not a number is no licence
        raise QualityTooLow(f"KL to the source is {kl:.4f} nats, and --max-kl allows {limit}")


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

"""THE MAIN PATH of what no family knows: a folder goes in, a verified bundle with optimum's graph comes out."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

from edgekit import contract, files
from edgekit.errors import QualityTooLow, UnknownFamily, UnsupportedCheckpoint, UsageError
from edgekit.manifest import Embedding, Manifest, SpecialTokens
from export import families, pack
from export.checkpoints import Checkpoint
from export.graph.ops import WeightFile
from export.job import ExportJob
from export.optimum import facts, proof, sentences, sites
from export.optimum.original import Original, Task, require_exporter
from export.optimum.rewrite import rewrite
from export.progress import Progress
from export.prompts import prompts_for
from export.quantize.plan import PlannedMatrix, Recipe

_FLOAT_COPIES = 3
"""Room on disk, in copies of the weights as floats: optimum's graph, its twin for verification, the bundle's own."""


def task_of(checkpoint: Checkpoint, source: Path) -> Task | None:
    """What the model is for if it goes this way: vectors if it says so, text if no family knows it; else None."""
    if checkpoint.kind != "huggingface":
        return None
    if sentences.is_sentence_model(source):
        return "embed"
    try:
        families.of(checkpoint.config)
    except UnknownFamily:
        return "generate"
    return None


def export(job: "ExportJob", named: pack.Named, checkpoint: Checkpoint, task: Task, progress: "Progress") -> Manifest:
    """As `pipeline.export`. Raises MissingExtra if torch, transformers or optimum is not installed."""
    _refuse_options(job, task)
    require_exporter(checkpoint.config, task)
    facts.check_sizes(checkpoint.config, checkpoint.names())
    progress.stage(f"no fused graph for {checkpoint.config.get('model_type')}: using optimum's exporter")
    return (_export_decoder if task == "generate" else _export_encoder)(job, named, checkpoint, progress)


def _refuse_options(job: "ExportJob", task: Task) -> None:
    """Options that would be ignored. Raises UsageError."""
    if job.recipe != Recipe(job.precision, job.block_size, calibration=job.calibration):
        raise UsageError(
            "--method, --size-budget, --rotate, --kv and --freeze-scales-from are for fused graphs, and no family knows"
            " this model"
        )
    if task == "embed" and job.max_kl is not None:
        raise UsageError("--max-kl is for models that write text, and this one makes vectors")


def _export_decoder(job: "ExportJob", named: pack.Named, checkpoint: Checkpoint, progress: "Progress") -> Manifest:
    text = checkpoint.text
    tokens = SpecialTokens(eos=text.eos_ids, bos=text.bos_id if text.add_bos else None, pad=text.pad_id)
    original = Original(checkpoint, "generate")
    with files.staging(job.out, needed_bytes=_needed_bytes(checkpoint)) as folder:
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            made = _write_graph(folder, Path(workshop), original, job, progress)
            graph = made.graph
            arch = facts.decoder_arch(graph.model.graph, checkpoint.config, graph.weights)
            prompts = prompts_for(text, arch)
            report = proof.of_decoder(
                made, arch, probe=prompts.probe, prompts=prompts.golden, eos=tokens.eos, step=progress.stage
            )
        if job.max_kl is not None and not report.kl <= job.max_kl:
            raise QualityTooLow(f"KL to the source is {report.kl:.4f} nats, and --max-kl allows {job.max_kl}")
        pack.write_text_files(folder, text)
        progress.stage("hashing")
        return pack.finish(folder, named, checkpoint, arch, _plan(made), tokens, report, pack.Use(kv="concat"))


def _export_encoder(job: "ExportJob", named: pack.Named, checkpoint: Checkpoint, progress: "Progress") -> Manifest:
    recipe = sentences.read_recipe(job.source, checkpoint.config)
    text = sentences.read_text(job.source)
    tokenize = sentences.tokenizer_of(text, recipe)
    original = Original(checkpoint, "embed")
    with files.staging(job.out, needed_bytes=_needed_bytes(checkpoint)) as folder:
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            made = _write_graph(folder, Path(workshop), original, job, progress)
            graph = made.graph
            arch = facts.encoder_arch(graph.model.graph, checkpoint.config, graph.weights, recipe.max_tokens)
            report = proof.of_encoder(made, recipe, tokenize, vocab=arch.vocab, step=progress.stage)
        pack.write_text_files(folder, text)
        progress.stage("hashing")
        embedding = Embedding(
            pooling=recipe.pooling,
            normalise=recipe.normalise,
            max_tokens=recipe.max_tokens,
            dimension=arch.hidden,
            golden=report.vectors,
        )
        tokens = SpecialTokens(eos=(), pad=text.pad_id)
        return pack.finish(folder, named, checkpoint, arch, _plan(made), tokens, report, pack.Use(embedding=embedding))


def _write_graph(
    folder: Path, workshop: Path, original: Original, job: "ExportJob", progress: "Progress"
) -> proof.Made:
    """optimum's graph in `workshop`, the finished one in `folder`."""
    float_path, model_path = workshop / "float.onnx", folder / contract.MODEL_FILE
    progress.stage("exporting with optimum")
    original.write_graph(float_path)
    graph = sites.GraphFile(float_path)
    found = sites.find(graph, job.precision, job.block_size)
    if not found:
        raise UnsupportedCheckpoint("optimum's graph of it multiplies by no constant matrix")
    progress.stage(f"quantising to {job.precision}")
    total, done = sum(site.bytes for site in found), 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        progress.advance(done, total)

    data = WeightFile(folder / contract.DATA_FILE)
    try:
        model = rewrite(graph, found, data, written)
    finally:
        data.close()
    onnx.save(model, str(model_path))
    return proof.Made(original, graph, float_path, model_path, found)


def _plan(made: proof.Made) -> Mapping[str, PlannedMatrix]:
    """The sites, as plans of fused graphs name their matrices."""
    return {
        site.name: PlannedMatrix(
            name=site.name,
            parts=(site.tensor,),
            rows=site.rows,
            columns=site.columns,
            spec=site.spec,
            method="float" if site.spec.bits == 32 else "round",
        )
        for site in made.sites
    }


def _needed_bytes(checkpoint: Checkpoint) -> int:
    """Free space to have before anything is written."""
    values = 0
    for info in checkpoint.names().values():
        count = 1
        for size in info.shape:
            count *= size
        values += count
    return _FLOAT_COPIES * 4 * values

"""THE MAIN PATH of export: a checkpoint goes in, a verified bundle comes out."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from edgekit import contract, files
from edgekit.arch import ModelArch
from edgekit.chat import ChatTemplate, Message
from edgekit.errors import CheckpointError, UnsupportedCheckpoint, UsageError
from edgekit.manifest import Manifest, SpecialTokens
from edgekit.quant import Precision
from export import checkpoints, pack, verify
from export.checkpoints import Checkpoint, TextFiles
from export.families import Weights, arch_of
from export.graph import decoder
from export.graph.ops import WeightFile
from export.prompts import GOLDEN_QUESTION, GOLDEN_TEXT, PROBE_TEXT, encode, token_text
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

    Raises CheckpointError and ExportError subclasses; `job.out` exists only if everything went well.
    """
    with checkpoints.open_checkpoint(job.source) as checkpoint:
        progress.stage(f"reading {checkpoint.file}")
        arch = arch_of(checkpoint)
        weights = Weights(checkpoint, arch)
        text, tokens = checkpoint.text, _tokens(checkpoint.text)
        _check_vocabulary(text, arch.vocab)
        plan = planning.plan(arch, job.precision, weights)
        needed = sum(matrix.bytes for matrix in plan.values()) + len(text.tokenizer_json)
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
                probe=encode(text, PROBE_TEXT)[: arch.context],
                prompts=_golden_prompts(text, tokens, arch.context),
                eos=tokens.eos,
                step=progress.stage,
            )
            progress.stage("hashing")
            named = pack.Named(_name(job), job.version, job.precision)
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


def _tokens(text: TextFiles) -> SpecialTokens:
    if not text.eos_ids:
        raise UnsupportedCheckpoint("it names no end-of-text token, so an answer would never end")
    return SpecialTokens(eos=text.eos_ids, bos=text.bos_id if text.add_bos else None, pad=text.pad_id)


def _check_vocabulary(text: TextFiles, vocab: int) -> None:
    largest = max([*encode(text, PROBE_TEXT), *text.eos_ids])
    if largest >= vocab:
        raise CheckpointError(f"its tokenizer makes the id {largest}, but the model has only {vocab} tokens")


def _golden_prompts(text: TextFiles, tokens: SpecialTokens, context: int) -> list[list[int]]:
    first = [] if tokens.bos is None else [tokens.bos]
    prompts = [first + encode(text, GOLDEN_TEXT)]
    if text.chat_template is not None:
        template = ChatTemplate(
            text.chat_template, bos=token_text(text, text.bos_id), eos=token_text(text, tokens.eos[0])
        )
        prompts.append(encode(text, template.render([Message(role="user", content=GOLDEN_QUESTION)])))
    room = context - verify.GOLDEN_TOKENS
    return [prompt[:room] for prompt in prompts if prompt and room > 0]


def _name(job: ExportJob) -> str:
    """A name that is safe in URLs and file systems, from --name or the source's own."""
    if job.name is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", job.name):
            raise UsageError(f"--name {job.name!r}: use letters, digits, dots, dashes and underscores")
        return job.name
    plain = job.source.name.removesuffix(".gguf") or job.source.resolve().name
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", plain).strip("-.")[:200] or "model"

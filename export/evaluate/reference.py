"""The other side of a comparison: a bundle as it is, or a checkpoint's own weights in float."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit import contract
from edgekit.bundle import Bundle, open_bundle, problems
from edgekit.errors import UsageError
from edgekit.hardware import usable_cores
from export.checkpoints import open_checkpoint
from export.evaluate.reader import BundleReader, LogitSource, Reader
from export.families import arch_of
from export.families.weights import CheckpointWeights
from export.job import ExportJob
from export.layerwise import Layerwise
from export.optimum import route
from export.pipeline import export
from export.progress import Progress


@dataclass(frozen=True)
class Reference:
    """What a bundle is held against. `reader` is None where windows can be read but nothing can be answered."""

    logits: LogitSource
    reader: Reader | None
    vocab: int
    context_tokens: int


def checked_bundle(folder: Path) -> Bundle:
    """A bundle whose every byte is the one that was recorded: what is measured must be what is named.

    Raises NotABundle, UnsupportedFormat, CorruptBundle or UnsafePath.
    """
    bundle = open_bundle(folder)
    if found := problems(bundle):
        raise found[0]
    return bundle


def open_reader(folder: Path) -> BundleReader:
    """A bundle's reader on all cores. Raises as `checked_bundle` and `BundleReader` do."""
    return BundleReader(checked_bundle(folder), threads=usable_cores())


@contextmanager
def open_reference(source: Path, *, answers: bool, vocab: int, progress: Progress) -> Iterator[Reference]:
    """A bundle, or anything that export takes, in float.

    To read windows, a checkpoint is run layer by layer where it lies. If it has to give `answers` too, or no family
    knows it, it is exported to float32 in a temporary folder, four bytes a weight, and removed afterwards; who often
    compares with it exports it once (`--quant fp32`) and names that bundle. Raises as export and `open_reader` do, and
    UsageError if its vocabulary is not of `vocab` tokens: logits could not be compared.
    """
    progress.stage(f"opening {source}")
    if (source / contract.MANIFEST_FILE).is_file():
        yield _checked(_of_bundle(source), source, vocab)
        return
    with open_checkpoint(source) as checkpoint:
        if not answers and route.task_of(checkpoint, source) is None:
            arch = arch_of(checkpoint)
            layers = Layerwise(arch, CheckpointWeights(checkpoint, arch))
            yield _checked(Reference(layers, None, arch.vocab, arch.context), source, vocab)
            return
    with tempfile.TemporaryDirectory(prefix="edgekit-reference-") as scratch:
        folder = Path(scratch, "float32")
        export(ExportJob(source, folder, "fp32", name="reference"), progress)
        yield _checked(_of_bundle(folder), source, vocab)


def _of_bundle(folder: Path) -> Reference:
    reader = open_reader(folder)
    return Reference(reader, reader, reader.vocab, reader.context_tokens)


def _checked(reference: Reference, source: Path, vocab: int) -> Reference:
    if reference.vocab != vocab:
        raise UsageError(
            f"--reference {source} has {reference.vocab:,} tokens and the bundle {vocab:,}: another model."
        )
    return reference

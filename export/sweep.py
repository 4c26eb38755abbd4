"""Several bundles of one model, to choose from: a table and a plot of quality against size."""

from dataclasses import replace

from edgekit import contract, files
from edgekit.errors import UsageError
from edgekit.quant import Precision
from export.job import ExportJob
from export.pipeline import export
from export.plots import Point, plot
from export.progress import Progress

PLANS: tuple[tuple[Precision, int], ...] = (("int4", 128), ("int4", 64), ("int4", 32), ("int8", 64), ("int8", 32))
"""Precisions and block sizes that are tried; the other wishes are the job's own."""

PLOT = "quality.svg"


def run(job: ExportJob, progress: Progress) -> list[Point]:
    """Make `job.out/int4-b64` and so on, and the plot beside them: all or nothing.

    Raises as `export` does, and UsageError for wishes that make no sense for several bundles.
    """
    if job.size_budget is not None:
        raise UsageError("--sweep goes through layouts, and --size-budget chooses one: give either")
    if job.freeze_scales_from is not None:
        raise UsageError("--sweep goes through layouts, and --freeze-scales-from has one of its own: give either")
    points = []
    with files.staging(job.out) as folder:
        for precision, block_size in PLANS:
            label = f"{precision}-b{block_size}"
            progress.stage(label)
            method = job.method if precision == "int4" else "rtn"
            manifest = export(
                replace(job, out=folder / label, precision=precision, block_size=block_size, method=method), progress
            )
            if manifest.task != "generate":
                raise UsageError("--sweep compares models that write text, and this one makes vectors")
            sizes = {entry.path: entry.size for entry in manifest.files}
            size = sizes[contract.MODEL_FILE] + sizes[contract.DATA_FILE]
            points.append(Point(label, size, manifest.quality["kl"], manifest.quality["same_top_token"]))
        plot(points, folder / PLOT)
    return points

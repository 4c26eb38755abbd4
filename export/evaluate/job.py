"""THE MAIN PATH of evaluation: a bundle and something to measure it on go in, numbers come out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from edgekit.bundle import Bundle
from edgekit.errors import UsageError
from edgekit.hardware import usable_cores
from export.evaluate import answers, sandbox
from export.evaluate.prompts import Prompts, read_tokenizer
from export.evaluate.questions import Sample, Task, read_task, sample
from export.evaluate.reader import BundleReader, Reader
from export.evaluate.reference import Reference, checked_bundle, open_reference
from export.evaluate.strategic import Way
from export.evaluate.text import Count, TextScore, compare, cut, read_ids
from export.progress import Progress


@dataclass(frozen=True, kw_only=True)
class EvalJob:
    """What to measure; the options of `edgekit eval`. With `ways`, the tasks are asked once by each."""

    bundle: Path
    reference: Path | None = None
    text: Path | None = None
    tokens: int | None = 8192
    window: int = 512
    count: Count = Count.ALL
    tasks: tuple[Path, ...] = ()
    limit: int | None = None
    seed: int = 0
    shots: int = 0
    raw: bool = False
    run_code: bool = False
    ways: tuple[Way, ...] = ()


@dataclass(frozen=True)
class StrategyScore:
    """The tasks' scores when they are asked by this strategy."""

    strategy: str
    tasks: tuple[answers.TaskScore, ...]


@dataclass(frozen=True)
class Evaluation:
    """What was measured: a text's score, and one for each task, or for each strategy one for each task."""

    text: TextScore | None
    tasks: tuple[answers.TaskScore, ...]
    strategies: tuple[StrategyScore, ...] = ()

    def as_json(self) -> dict[str, object]:
        """The fields that scripts rely on: those of a text only with a text, of tasks only with tasks, and so on."""
        found: dict[str, object] = {} if self.text is None else dict(asdict(self.text))
        if self.tasks:
            found |= _told(self.tasks)
        if self.strategies:
            found["strategies"] = [{"strategy": each.strategy, **_told(each.tasks)} for each in self.strategies]
        return found

    def task_table(self) -> list[str]:
        """Lines of a Markdown table."""
        lines = ["| task | questions | score | per token | reference | agreement |", "|---|---|---|---|---|---|"]
        rows = [*self.tasks, answers.overall(self.tasks)] if len(self.tasks) > 1 else self.tasks
        for each in rows:
            shares = (each.score, each.score_normalised, each.reference_score, each.agreement)
            shown = " | ".join("" if share is None else f"{share:.1%}" for share in shares)
            lines.append(f"| {each.task} | {each.questions} | {shown} |")
        return lines

    def strategy_table(self) -> list[str]:
        """Lines of a Markdown table: all tasks together, by each strategy."""
        lines = [
            "| strategy | questions | score | per token | reference | agreement | tokens per answer |",
            "|---|---|---|---|---|---|---|",
        ]
        for each in self.strategies:
            total = answers.overall(each.tasks)
            shares = (total.score, total.score_normalised, total.reference_score, total.agreement)
            shown = " | ".join("" if share is None else f"{share:.1%}" for share in shares)
            lines.append(f"| {each.strategy} | {total.questions} | {shown} | {total.tokens_per_answer:.1f} |")
        return lines


def _told(tasks: Sequence[answers.TaskScore]) -> dict[str, object]:
    """All tasks together, and each; what was chosen only where something could be."""
    total, *rows = [
        {name: value for name, value in asdict(each).items() if value != {}}
        for each in (answers.overall(tasks), *tasks)
    ]
    del total["task"]
    return {**total, "tasks": rows}


def evaluate(job: EvalJob, progress: Progress) -> Evaluation:
    """Measure `job.bundle`, beside `job.reference` if there is one.

    Raises BundleError subclasses, what an export of the reference raises, BadTask, TemplateError, and UsageError for
    a text that is too short, programs without leave to run them, or strategies for a model without a chat template.
    """
    tasks = [read_task(path) for path in job.tasks]
    _allow_programs(tasks, run_code=job.run_code)
    asked = [sample(task, limit=job.limit, seed=job.seed, shots=job.shots) for task in tasks]
    progress.stage(f"opening {job.bundle}")
    bundle = checked_bundle(job.bundle)
    reader = BundleReader(bundle, threads=usable_cores())
    with ExitStack() as stack:
        reference = None
        if job.reference is not None:
            other = open_reference(job.reference, answers=bool(tasks), vocab=reader.vocab, progress=progress)
            reference = stack.enter_context(other)
        text = _text_score(bundle, reader, reference, job, progress)
        if not tasks:
            return Evaluation(text, ())
        prompts = Prompts(bundle, raw=job.raw)
        readers = (reader, None if reference is None else reference.reader)
        pairs = list(zip(tasks, asked, strict=True))

        def scores(way: Way | None) -> tuple[answers.TaskScore, ...]:
            return tuple(_task_score(readers, prompts, *each, way, progress) for each in pairs)

        if not job.ways:
            return Evaluation(text, scores(None))
        return Evaluation(text, (), tuple(StrategyScore(way.name, scores(way)) for way in job.ways))


def _allow_programs(tasks: Sequence[Task], *, run_code: bool) -> None:
    programs = [task.path.name for task in tasks if task.has_programs]
    if not programs:
        return
    if not run_code:
        raise UsageError(
            f"{programs[0]} asks for programs, which are judged by running them: what a model writes may do anything. "
            "--run-code allows it, confined as far as this system can."
        )
    sandbox.check_platform()


def _text_score(
    bundle: Bundle, reader: BundleReader, reference: Reference | None, job: EvalJob, progress: Progress
) -> TextScore | None:
    if job.text is None:
        return None
    bos = bundle.manifest.tokens.bos
    limit = None if job.tokens is None else job.tokens + (bos is None)  # nothing predicts the first
    ids = read_ids(job.text, read_tokenizer(bundle), limit)
    window = min(job.window, *(each.context_tokens for each in (reader, reference) if each is not None))
    windows = cut(ids, window=window, bos=bos, count=job.count)
    progress.stage(f"reading {len(ids):,} tokens of {job.text.name}")
    return compare(reader, None if reference is None else reference.logits, windows, progress)


def _task_score(
    readers: tuple[Reader, Reader | None],
    prompts: Prompts,
    task: Task,
    asked: Sample,
    way: Way | None,
    progress: Progress,
) -> answers.TaskScore:
    """Both readers answer the same prompts, ids and all; with a `way`, each behind reasoning of its own."""
    total = len(asked.questions) * (1 if readers[1] is None else 2)
    by = f" by {way.name}" if way else ""
    progress.stage(f"asking {task.name}: {len(asked.questions)} questions{by}")
    found: list[list[answers.Answer]] = []
    done = 0
    for reader in readers:
        given: list[answers.Answer] = []
        if reader is not None:
            for answer in answers.answers(reader, prompts, task, asked, sandbox.passes, way=way):
                given.append(answer)
                done += 1
                progress.advance(done, total)
        found.append(given)
    return answers.score(task, found[0], found[1] if readers[1] is not None else None)

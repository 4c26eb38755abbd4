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
from export.evaluate.text import Count, TextScore, compare, cut, read_ids
from export.pipeline import Progress


@dataclass(frozen=True, kw_only=True)
class EvalJob:
    """What to measure; the options of `edgekit eval`."""

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


@dataclass(frozen=True)
class Evaluation:
    """What was measured: a text's score, and one for each task."""

    text: TextScore | None
    tasks: tuple[answers.TaskScore, ...]

    def as_json(self) -> dict[str, object]:
        """The fields that scripts rely on; those of a text only with a text, those of tasks only with tasks."""
        found: dict[str, object] = {} if self.text is None else dict(asdict(self.text))
        if self.tasks:
            total = asdict(answers.overall(self.tasks))
            found |= {name: value for name, value in total.items() if name != "task"}
            found["tasks"] = [asdict(each) for each in self.tasks]
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


def evaluate(job: EvalJob, progress: Progress) -> Evaluation:
    """Measure `job.bundle`, beside `job.reference` if there is one.

    Raises BundleError subclasses, what an export of the reference raises, BadTask, TemplateError, and UsageError for
    a text that is too short or programs without leave to run them.
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
        scores = [_task_score(readers, prompts, *each, progress) for each in zip(tasks, asked, strict=True)]
        return Evaluation(text, tuple(scores))


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
    readers: tuple[Reader, Reader | None], prompts: Prompts, task: Task, asked: Sample, progress: Progress
) -> answers.TaskScore:
    """Both readers answer the same prompts, ids and all."""
    total = len(asked.questions) * (1 if readers[1] is None else 2)
    progress.stage(f"asking {task.name}: {len(asked.questions)} questions")
    found: list[list[answers.Answer]] = []
    done = 0
    for reader in readers:
        given: list[answers.Answer] = []
        if reader is not None:
            for answer in answers.answers(reader, prompts, task, asked, sandbox.passes):
                given.append(answer)
                done += 1
                progress.advance(done, total)
        found.append(given)
    return answers.score(task, found[0], found[1] if readers[1] is not None else None)

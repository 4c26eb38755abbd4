"""Updates in words, for a terminal. Pure: records in, lines out."""

from collections.abc import Iterable, Mapping

from device_agent.sync.records import Cost, Offer, Outcome, Phase, Progress
from edgekit import errors

DOING: Mapping[Phase, str] = {
    "idle": "",
    "checking": "asking the repository",
    "fetching": "fetching",
    "verifying": "reading every file again",
    "trial": "trying it",
    "soaking": "it serves, and is watched",
}
HINTS: Mapping[int, str] = {
    kind.exit_code: kind.hint
    for kind in (errors.Untrusted, errors.TrustLost, errors.Unreachable, errors.CorruptRelease, errors.FailedTrial)
} | {
    errors.UnsupportedRelease.exit_code: errors.UnsupportedRelease.hint,
    errors.NotInRepository.exit_code: "Its owner may have named it otherwise: see `edgekit channel show` there.",
    errors.NoSpace.exit_code: errors.NoSpace.hint,
    errors.NotEnrolled.exit_code: errors.NotEnrolled.hint,
}
"""What to do next, by the exit code of an outcome."""

BAR_CHARS = 28
_STEPS = ("bytes", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """103700000 -> "104 MB"."""
    step, value = 0, float(count)
    while round(value) >= 1000 and step < len(_STEPS) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.{1 if step and value < 10 else 0}f} {_STEPS[step]}"


def span(seconds: float) -> str:
    """93784 -> "26:03:04"."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def doing(progress: Progress) -> str:
    """One line on what is going on, "" if nothing is."""
    if progress.phase == "idle":
        return ""
    what = f"{progress.release or progress.channel or ''}  {DOING[progress.phase]}".strip()
    if progress.phase != "fetching":
        return what
    share = progress.done_bytes / progress.total_bytes if progress.total_bytes else 1.0
    full = round(share * BAR_CHARS)
    words = [what, f"[{'#' * full}{'-' * (BAR_CHARS - full)}]", f"{share:4.0%}"]
    words.append(f"{size(progress.done_bytes)} of {size(progress.total_bytes)}")
    if progress.bytes_per_s is not None:
        words.append(f"{size(progress.bytes_per_s)}/s")
    if progress.eta_s is not None:
        words.append(f"{span(progress.eta_s)} left")
    return "  ".join(words)


def outcome(found: Outcome) -> str:
    """What became of a channel."""
    name, why = found.release or "", f": {found.reason}" if found.reason else ""
    if found.ending == "installed":
        moved = f"{size(found.moved_bytes)} fetched, {size(found.reused_bytes)} were here already"
        return f"{found.channel}: {name} is installed{why} ({moved}, {found.seconds:,.1f} s)"
    if found.ending == "current":
        return f"{found.channel}: {name} is the newest, and runs here{why}"
    words = {"held": "waits", "refused": "refused", "failed": "not done"}
    return f"{found.channel}: {words[found.ending]}{why}"


def hints(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """What to do next about those that went wrong, each once."""
    return tuple(dict.fromkeys(HINTS[found.exit_code] for found in outcomes if found.exit_code in HINTS))


def offer(found: Offer) -> str:
    """What a channel has."""
    if found.cost is None:
        return f"{found.channel}: {found.release or 'nothing'}, {found.reason}"
    return f"{found.channel}: {found.release}, {found.reason}: {cost(found.cost)}"


def cost(found: Cost) -> str:
    """What an update takes."""
    words = f"{size(found.fetch_bytes)} to fetch"
    if found.fetch_bytes < found.full_bytes:
        words += f", {found.fetch_bytes / found.full_bytes:.0%} of {size(found.full_bytes)}"
    return f"{words}; {size(found.disk_bytes)} on disk"


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """Of a run: 0 only if nothing was refused, and nothing could not be had; else that of the first such channel."""
    return next((found.exit_code or 1 for found in outcomes if found.ending in ("refused", "failed")), 0)

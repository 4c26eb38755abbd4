"""A record from what lies on the disk, for the day when both of its slots are damaged. Pure.

Which channel brought a release is lost with it: its line gets a name that no channel has been given. The newest release
of each model is taken for the active one, and the next newest for the one to go back to. A line of the same model that
a channel brings later takes its place (`superseded`).
"""

import itertools
from collections.abc import Iterable, Mapping

from device_agent.releases.records import Installed, Line, State

RECOVERED = "recovered"


def rebuilt(installed: Iterable[Installed]) -> State:
    """The lines that these releases make: one for each model, and one for each adapter."""
    order = sorted(installed, key=lambda one: (one.ref.kind, one.release.name, -one.ref.sequence))
    lines = []
    for number, (_, group) in enumerate(itertools.groupby(order, key=lambda one: (one.ref.kind, one.release.name)), 1):
        newest, *older = (one.ref for one in group)
        name = f"{RECOVERED}-{number}"
        lines.append(Line(channel=name, active=newest, previous=next(iter(older), None)))
    return State(lines=tuple(lines))


def is_recovered(line: Line) -> bool:
    """Whether a line was made here, and not by a channel."""
    return line.channel.startswith(f"{RECOVERED}-")


def superseded(state: State, models: Mapping[str, str]) -> State:
    """Without recovered lines of a model that a channel has brought since; `models` are names by SHA-256."""
    brought = {
        (line.active.kind, models.get(line.active.sha256))
        for line in state.lines
        if line.active is not None and not is_recovered(line)
    }
    left = tuple(line for line in state.lines if not (is_recovered(line) and _key(line, models) in brought))
    return state if len(left) == len(state.lines) else State(lines=left, refusals=state.refusals)


def _key(line: Line, models: Mapping[str, str]) -> object:
    return None if line.active is None else (line.active.kind, models.get(line.active.sha256))

"""What the crash tests have looked at, as the table that a run of them ends with."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.crashes.explorer import Exploration


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one scenario: recorded operations, places that fsync, states after crashes and how many were not survived."""

    name: str
    operations: int
    fsyncs: int
    states: int
    failures: int
    seconds: float


FIGURES = pytest.StashKey[list[Figures]]()
"""Where a run keeps them until its end."""


def figures(name: str, exploration: Exploration) -> Figures:
    """What an exploration has come to so far."""
    sites = {*exploration.sites, *exploration.second_sites}
    return Figures(
        name=name,
        operations=len(exploration.ops),
        fsyncs=len(sites),
        states=exploration.states + exploration.lost,
        failures=exploration.lost,
        seconds=exploration.seconds,
    )


def table(found: Sequence[Figures]) -> list[str]:
    """Lines; the last one is the sum. Places that fsync are shared, and have none."""
    lines = [f"{'crashes of':<28} {'operations':>10} {'fsyncs':>7} {'states':>7} {'failures':>9} {'seconds':>8}"]
    lines += [
        f"{one.name:<28} {one.operations:>10} {one.fsyncs:>7} {one.states:>7} {one.failures:>9} {one.seconds:>8.1f}"
        for one in sorted(found, key=lambda one: one.name)
    ]
    states, failures = sum(one.states for one in found), sum(one.failures for one in found)
    operations, seconds = sum(one.operations for one in found), sum(one.seconds for one in found)
    return [*lines, f"{'all':<28} {operations:>10} {'':>7} {states:>7} {failures:>9} {seconds:>8.1f}"]

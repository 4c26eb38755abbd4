"""Spending bytes where they buy most: each matrix gets a layout so that the whole stays under a budget.

Losses add up, because each is small: the KL divergence that a matrix's rounding costs by itself, for each layout
that it could have. Along the lower convex hull of (bytes, loss) of each matrix, steps are taken in the order of
loss saved per byte (the greedy solution of the knapsack's linear relaxation).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.errors import BudgetTooSmall
from export.quantize.plan import Choice


@dataclass(frozen=True)
class Option:
    """A layout for one matrix: its size, and the KL in nats that it alone costs."""

    choice: Choice
    bytes: int
    kl: float


@dataclass(frozen=True)
class Upgrade:
    """From one option of a matrix to a better one."""

    unit: str
    start: Option
    to: Option

    @property
    def bytes(self) -> int:
        """What it takes more."""
        return self.to.bytes - self.start.bytes

    @property
    def worth(self) -> float:
        """KL saved per byte."""
        return _slope(self.start, self.to)


def allocate(options: Mapping[str, Sequence[Option]], budget_bytes: int) -> dict[str, Option]:
    """One option for each matrix. Raises BudgetTooSmall if even the smallest ones are too large.

    Steps taken one by one cannot see past a large matrix, as the embedding of a small model is: what they spend on
    others no longer buys its step. So each option of the largest one is tried, and the plan that costs least kept.
    """
    hulls = {unit: hull(each) for unit, each in options.items()}
    smallest = sum(each[0].bytes for each in hulls.values())
    if smallest > budget_bytes:
        raise BudgetTooSmall(f"its smallest weights take {smallest:,} bytes, and {budget_bytes:,} are left")
    largest = max(hulls, key=lambda unit: hulls[unit][-1].bytes, default=None)
    if largest is None:
        return {}
    plans = [
        _greedy(hulls | {largest: [option]}, budget_bytes)
        for option in hulls[largest]
        if smallest - hulls[largest][0].bytes + option.bytes <= budget_bytes
    ]
    return min(plans, key=lambda plan: sum(option.kl for option in plan.values()))


def _greedy(hulls: Mapping[str, Sequence[Option]], budget_bytes: int) -> dict[str, Option]:
    chosen = {unit: each[0] for unit, each in hulls.items()}
    left = budget_bytes - sum(option.bytes for option in chosen.values())
    upgrades = [
        Upgrade(unit, worse, better) for unit, each in hulls.items() for worse, better in itertools.pairwise(each)
    ]
    for upgrade in sorted(upgrades, key=lambda each: -each.worth):
        # A step starts from the one before; if that one did not fit, neither does this.
        if chosen[upgrade.unit] is not upgrade.start or upgrade.bytes > left:
            continue
        chosen[upgrade.unit] = upgrade.to
        left -= upgrade.bytes
    return chosen


def hull(options: Sequence[Option]) -> list[Option]:
    """Options worth having, smallest first: each buys less per byte than the one before."""
    ordered = sorted(options, key=lambda option: (option.bytes, option.kl))
    kept: list[Option] = []
    for option in ordered:
        if kept and option.kl >= kept[-1].kl:
            continue
        while len(kept) > 1 and _slope(kept[-2], option) >= _slope(kept[-2], kept[-1]):
            kept.pop()
        kept.append(option)
    return kept


def _slope(worse: Option, better: Option) -> float:
    return (worse.kl - better.kl) / (better.bytes - worse.bytes)

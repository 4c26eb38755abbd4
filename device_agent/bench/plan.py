"""What is measured: lengths of prompts, and how deep and how wide is decoded. Rules only."""

from dataclasses import dataclass, replace
from typing import TypeVar

from edgekit.errors import UsageError

GRID_PROMPTS = (32, 128, 512, 1024, 2048)
GRID_DEPTHS = (0, 512, 1024, 2048)
GRID_ROWS = (1, 2, 4, 8)
QUICK_PROMPTS = (128, 512)
"""Read when nothing is said; the first is the one that the report's first figures are of."""
DECODE_TOKENS = 64
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Decode:
    """`rows` texts of `depth` tokens each are continued together."""

    depth: int
    rows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one round measures. The first prompt and the first decoding are those of the report's first figures."""

    prompts: tuple[int, ...]
    decodes: tuple[Decode, ...]
    decode_tokens: int = DECODE_TOKENS

    @property
    def most_rows(self) -> int:
        """The widest decoding."""
        return max(case.rows for case in self.decodes)

    @property
    def first(self) -> "Plan":
        """The first figures alone."""
        return replace(self, prompts=self.prompts[:1], decodes=self.decodes[:1])


def make_plan(prompt_tokens: int | None, decode_tokens: int, batch: int, *, full: bool) -> Plan:
    """A prompt and a decoding after it of `batch` rows; the usual two prompts if none is given; or the whole grid."""
    first = prompt_tokens or QUICK_PROMPTS[0]
    prompts: tuple[int, ...] = (first,)
    decodes = [Decode(first, batch)]
    if full:
        prompts += GRID_PROMPTS
        decodes += [Decode(depth) for depth in GRID_DEPTHS]
        decodes += [Decode(first, rows) for rows in GRID_ROWS]
    elif prompt_tokens is None:
        prompts += QUICK_PROMPTS
    return Plan(prompts=_once(prompts), decodes=_once(tuple(decodes)), decode_tokens=decode_tokens)


def fitted(plan: Plan, context: int) -> Plan:
    """The plan as far as `context` tokens allow: longer prompts are left out, depths end where decoding still fits.

    Raises UsageError if the first prompt and what is decoded after it do not fit.
    """
    first, tokens = plan.prompts[0], plan.decode_tokens
    if first < 1 or tokens < 1 or max(first, plan.decodes[0].depth) + tokens > context:
        raise UsageError(
            f"{first} prompt tokens and {tokens} decoded ones: at least 1 and 1 are needed, "
            f"and the model's context is {context}"
        )
    return replace(
        plan,
        prompts=tuple(length for length in plan.prompts if length <= context),
        decodes=_once(tuple(replace(case, depth=min(case.depth, context - tokens)) for case in plan.decodes)),
    )


def common(plan: Plan, contexts: list[int], most_rows: list[int]) -> Plan:
    """The plan that all bundles can do. Raises UsageError if one cannot do even the first decoding."""
    plan = fitted(plan, min(contexts))
    rows = min(most_rows)
    if plan.decodes[0].rows > rows:
        raise UsageError(f"{plan.decodes[0].rows} rows: the model decodes at most {rows} together")
    return replace(plan, decodes=tuple(case for case in plan.decodes if case.rows <= rows))


def _once(items: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items))

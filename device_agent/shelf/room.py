"""How much memory models take, and which ones make room for another. Pure."""

from collections.abc import Iterable, Sequence

from device_agent.engine.scheduling.budget import USUAL_CONTEXT_TOKENS, USUAL_SLOTS
from edgekit.errors import Overloaded
from edgekit.manifest import Manifest

SHARE = 0.7
"""Of the memory that is free, or that models of ours take already; the rest is for what grows, and for others."""

RETRY_AFTER_S = 5


def reserved_bytes(manifest: Manifest, slots: int | None) -> int:
    """What is set aside for a model: weights, and the cache of as many usual conversations as run together."""
    each = min(manifest.arch.context, USUAL_CONTEXT_TOKENS)
    return manifest.memory_bytes(tokens=(slots or USUAL_SLOTS) * each)


def budget_bytes(wanted: int | None, *, available: int, taken: int) -> int:
    """What all loaded models may take together, of which `taken` they do already."""
    return int(SHARE * (available + taken)) if wanted is None else wanted


def to_close(needed: int, budget: int, *, held: Iterable[int], idle: Sequence[int], model: str) -> int:
    """How many of the `idle` models, the longest unused first, are to be closed before one of `needed` bytes opens.

    `held` and `idle` are the sizes of the loaded ones. A model that is larger than the budget may open when nothing
    else is loaded: it is better than no model, and the system may still find the memory. Raises Overloaded if models
    that are in use leave no room.
    """
    held = list(held)
    free = budget - needed - sum(held)
    for count in range(len(idle) + 1):
        if sum(idle[count:]) <= free:
            return count
    if held:
        raise Overloaded(f"there is no memory for {model} while other models answer.", RETRY_AFTER_S)
    return len(idle)

"""Whether the agent is well: facts in, a status and reasons out. Pure."""

from collections.abc import Iterator

from device_agent.http.services import Health
from device_agent.shelf import Standing

LEAST_FREE_BYTES = 64 << 20
"""Of the disk with the agent's folder: below, keys, usage and caches will soon fail to be written."""

MOST_REASONS = 20


def health(
    standing: Standing, *, stopping: bool = False, trouble: str | None = None, free_bytes: int | None = None
) -> Health:
    """How the agent is.

    `trouble` is why the ledger cannot be written. Reasons name models and folders of the store, never paths or what
    an error said: anybody may ask. The log has the rest.
    """
    if stopping:
        return Health(status="degraded", reasons=("the agent is stopping",), ready=False)
    wrong = tuple(_wrong(standing, trouble, free_bytes))[:MOST_REASONS]
    if standing.loading:
        return Health(status="loading", reasons=(f"{standing.active} is being loaded", *wrong), ready=False)
    lost = standing.active is None or standing.active in standing.failures
    return Health(status="degraded" if wrong else "ok", reasons=wrong, ready=not lost)


def _wrong(standing: Standing, trouble: str | None, free_bytes: int | None) -> Iterator[str]:
    if standing.active is None:
        yield "there is no model"
    for name in standing.failures:
        yield f"{name} could not be loaded"
    for fault in standing.faults:
        yield f"the bundle in {fault.name} cannot be used"
    if trouble is not None:
        yield "the ledger of tokens cannot be written"
    if free_bytes is not None and free_bytes < LEAST_FREE_BYTES:
        yield "the disk is almost full"

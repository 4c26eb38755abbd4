"""LedgerSettings: what is kept of requests, and for how long."""

from dataclasses import dataclass

from device_agent.ledger.prices import Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """`keep_texts` also keeps prompts and answers, which people may have written in confidence.

    Everything older than `retention_days` is deleted. Of single requests the last `most_requests` are kept (about 250
    bytes each without texts); the sums of a day stay.
    """

    keep_texts: bool = False
    retention_days: int = 400
    most_requests: int = 200_000
    prices: Prices | None = None

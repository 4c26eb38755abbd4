"""The device's updates: facts first, findings from them. Only `probe` looks at anything, and asks nobody far away."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_agent.doctor.records import Finding
from edgekit.errors import EdgekitError, TrustLost

CHECK = "updates"
QUIET_S = 7 * 86_400.0
"""A device that reached no repository for so long may be forgotten in a drawer, or cut off."""

SOON_S = 3 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFacts:
    """What the rules look at; times are Unix seconds. `problem` is why nobody can tell.

    `refused` are sentences on releases that failed here.
    """

    enrolled: bool
    now: float = 0.0
    problem: str = ""
    hint: str = ""
    repositories: int = 0
    fresh: bool = True
    expires: float | None = None
    clock_reliable: bool = True
    checked_at: float | None = None
    last_problem: str = ""
    refused: tuple[str, ...] = ()


def findings(facts: UpdateFacts) -> Iterator[Finding]:
    """Every rule; one finding if all is well."""
    if facts.problem:
        yield Finding(CHECK, "red", facts.problem, facts.hint)
        return
    if not facts.enrolled:
        yield Finding(CHECK, "green", "this device follows no repository")
        return
    found = list(_wrong(facts))
    yield from found
    if not found:
        said = "not looked yet" if facts.checked_at is None else f"last looked {_day(facts.checked_at)}"
        yield Finding(CHECK, "green", said)


def _wrong(facts: UpdateFacts) -> Iterator[Finding]:
    if not facts.repositories:
        yield Finding(CHECK, "red", "no repository to look at", "Set sync.repositories, or enrol it again.")
    if not facts.clock_reliable:
        yield Finding(CHECK, "amber", "the clock is behind the newest signature", "Set the clock, or switch on NTP.")
    if not facts.fresh:
        said = "what is known of the repository is out of date: nothing new is installed"
        yield Finding(CHECK, "amber", said, "edgekit sync --once; if that does not help, its owner must refresh it.")
    elif facts.expires is not None and facts.expires - facts.now < SOON_S:
        said = f"what is known of the repository is good until {_day(facts.expires)}"
        yield Finding(CHECK, "amber", said, "edgekit sync --once")
    if facts.checked_at is not None and facts.now - facts.checked_at > QUIET_S:
        said = f"no repository was reached since {_day(facts.checked_at)}"
        yield Finding(CHECK, "amber", said, facts.last_problem or "edgekit sync --once")
    for sentence in facts.refused:
        yield Finding(CHECK, "amber", sentence, "Its owner should hear of it: `edgekit rollout status` there.")


def _day(at: float) -> str:
    return f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def probe(home: Path, *, repositories: int, now: float) -> UpdateFacts:
    """Facts of this device; `repositories` is how many its settings name. Never raises EdgekitError."""
    from device_agent.releases.store import Store
    from device_agent.sync.history import History
    from device_agent.sync.identity import read_identity

    try:
        identity = read_identity(home)
        if identity is None:
            return UpdateFacts(enrolled=False)
        from device_agent.sync.composing import trust_of

        view = trust_of(home, identity, clock=lambda: now).last()
        refusals = Store(home).state().refusals
    except EdgekitError as problem:
        hint = problem.hint if isinstance(problem, TrustLost) else ""
        return UpdateFacts(enrolled=True, problem=str(problem), hint=hint or "`edgekit sync --once` tells more.")
    told = History(home, clock=lambda: now).read()
    failed = next((entry.reason for entry in told.entries if entry.exit_code), "")
    return UpdateFacts(
        enrolled=True,
        now=now,
        repositories=repositories or len(identity.provisioning.repositories),
        fresh=view is None or view.fresh,
        expires=None if view is None else view.expires,
        clock_reliable=view is None or view.clock_reliable,
        checked_at=told.checked_at,
        last_problem=failed,
        refused=tuple(f"{one.release.id} failed here: {one.reason}" for one in refusals),
    )

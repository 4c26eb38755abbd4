"""What this device tells its owner: after every update that did something, when anything changed, and once a day.

    note: state -> Report -> sealed -> sync/report.0, .1     carry: the newest one -> everywhere it has not been yet

Only the newest report waits to be carried: it says everything that the ones before it said. Nothing here fails or
holds up an update; what could not be carried goes with the next look.
"""

import logging
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from device_agent.releases.records import Installed, Line, Ref, State
from device_agent.sync import courier
from device_agent.sync.identity import FOLDER, Identity
from device_agent.sync.records import Clock, Outcome
from device_agent.sync.transport.address import shown
from edgekit import __version__
from edgekit.errors import StorageFailed, Unreachable
from edgekit.hardware import processor_name, usable_cores
from edgekit.release.channel import Device
from edgekit.release.names import ReleaseId
from edgekit.release.reports import (
    FORMAT,
    Figures,
    Machine,
    Report,
    ReportedLine,
    ReportedOutcome,
    ReportedRefusal,
    sealed,
    unsealed,
)
from edgekit.slots import Slots

RECORD = "report"
EVERY_S = 86_400.0

_MOST_REFUSALS, _MOST_OUTCOMES, _MOST_RELEASES, _MOST_LINES = 20, 20, 200, 50
_MOST_FIGURES = 50
_REASON_CHARS = 300
_WORD_CHARS = 100
_LATEST = 1 << 40
_log = logging.getLogger(__name__)

Trials = Mapping[ReleaseId, Mapping[str, float]]
"""Figures of the trials of releases on this device."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest report, and which servers have it (folders are looked into)."""

    envelope: str
    carried: tuple[str, ...] = ()


class Reporter:
    """Reports of one device. One thread at a time, in the process that holds the updater's lock."""

    def __init__(self, home: Path, identity: Identity, *, clock: Clock) -> None:
        self._identity = identity
        self._slots = Slots(home / FOLDER, RECORD)
        self._clock = clock
        self._private = {str(home): "EDGEKIT_HOME", os.path.expanduser("~"): "~"}  # noqa: PTH111  # never raises

    def note(
        self,
        state: State,
        installed: Sequence[Installed],
        outcomes: Sequence[Outcome] = (),
        *,
        trials: Trials | None = None,
    ) -> bool:
        """Make a report if there is news, or the last one is a day old. Whether it did. Never raises EdgekitError."""
        try:
            last = self._last()
            now = max(0, min(int(self._clock()), _LATEST - 1))
            # Seconds, so that a device that lost the last report goes on counting above it; and never less than it.
            counter = max(now, 1) if last is None else max(now, last.counter + 1)
            known = {} if last is None else {one.release: one.figures for one in last.health}
            report = made(
                state,
                installed,
                outcomes,
                device=self._identity.device,
                counter=counter,
                now=now,
                trials={**known, **(trials or {})},
            )
            report = self._without_names(report)
            if last is not None and not _is_news(report, last):
                return False
            self._keep(_Kept(envelope=sealed(report, self._identity.secret).decode()))
        except StorageFailed as error:
            _log.warning("No report was made: %s", error)
            return False
        return True

    def carry(self, report: str | None, repositories: Sequence[str]) -> tuple[str, ...]:
        """Bring the newest report everywhere it has not been yet: where settings say, and onto sticks that are in.

        The places, as people may see them, that have it now. Never raises EdgekitError.
        """
        try:
            kept = self._kept()
        except StorageFailed as error:
            _log.warning("The last report cannot be read: %s", error)
            return ()
        if kept is None:
            return ()
        here = tuple(place for place in courier.places(report, repositories) if self._has_it(kept, place))
        self._mark(kept, here)
        return tuple(shown(place) for place in here)

    def _has_it(self, kept: _Kept, place: str) -> bool:
        if shown(place) in kept.carried:
            return True
        try:
            courier.deliver(kept.envelope.encode(), self._identity.device.id, place)
        except Unreachable as error:
            _log.info("%s", error)
            return False
        return True

    def _mark(self, kept: _Kept, here: tuple[str, ...]) -> None:
        """Remember which servers have it; without their passwords, as this file is no secret."""
        servers = {shown(place) for place in here if courier.folder_of(place) is None}
        if servers <= set(kept.carried):
            return
        try:
            self._keep(msgspec.structs.replace(kept, carried=tuple(sorted(servers | set(kept.carried)))))
        except StorageFailed as error:
            _log.warning("That a report was carried is not remembered: %s", error)

    def _keep(self, kept: _Kept) -> None:
        self._slots.write(msgspec.json.encode(kept))

    def _kept(self) -> _Kept | None:
        found = self._slots.read()
        if found.damaged:
            _log.warning("A record of the last report is damaged.")
        if found.payload is None:
            return None
        try:
            return msgspec.json.decode(found.payload, type=_Kept)
        except (msgspec.DecodeError, UnicodeError):
            return None

    def _last(self) -> Report | None:
        kept = self._kept()
        found = None if kept is None else unsealed(kept.envelope.encode())
        return None if found is None or found[1].device != self._identity.device.id else found[1]

    def _without_names(self, report: Report) -> Report:
        """A reason may say a path, and a path its owner's name."""

        def clean(reason: str) -> str:
            for folder, word in self._private.items():
                reason = reason.replace(folder, word) if len(folder) > 1 else reason
            return reason[:_REASON_CHARS]

        replace = msgspec.structs.replace
        return replace(
            report,
            refusals=tuple(replace(refusal, reason=clean(refusal.reason)) for refusal in report.refusals),
            outcomes=tuple(replace(outcome, reason=clean(outcome.reason)) for outcome in report.outcomes),
        )


def made(
    state: State,
    installed: Sequence[Installed],
    outcomes: Sequence[Outcome],
    *,
    device: Device,
    counter: int,
    now: int,
    trials: Trials,
) -> Report:
    """A report of what there is, the newest of what is much."""
    refusals = sorted(state.refusals, key=lambda refusal: refusal.at, reverse=True)[:_MOST_REFUSALS]
    newest = sorted(installed, key=lambda one: one.ref.sequence, reverse=True)[:_MOST_RELEASES]
    return Report(
        format=FORMAT,
        device=device.id,
        counter=counter,
        at=now,
        agent=__version__,
        machine=this_machine(),
        labels=dict(device.labels),
        lines=tuple(_line(line) for line in state.lines[:_MOST_LINES]),
        refusals=tuple(
            ReportedRefusal(release=refusal.release.id, channel=refusal.channel, reason=refusal.reason)
            for refusal in refusals
        ),
        outcomes=tuple(
            ReportedOutcome(
                channel=outcome.channel,
                ending=outcome.ending,
                release=outcome.release,
                reason=outcome.reason,
                exit_code=outcome.exit_code,
            )
            for outcome in outcomes[:_MOST_OUTCOMES]
        ),
        have=tuple(one.ref.id for one in newest),
        health=tuple(Figures(one.ref.id, _finite(trials[one.ref.id])) for one in newest if one.ref.id in trials),
    )


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """JSON has no other numbers."""
    known = [(name[:_WORD_CHARS], value) for name, value in figures.items() if math.isfinite(value)]
    return dict(known[:_MOST_FIGURES])


def this_machine() -> Machine:
    """What this device is made of."""
    return Machine(
        system=platform.system()[:_WORD_CHARS],
        machine=platform.machine()[:_WORD_CHARS],
        processor=processor_name()[:_WORD_CHARS],
        cores=usable_cores(),
        memory_bytes=int(psutil.virtual_memory().total),
    )


def _line(line: Line) -> ReportedLine:
    def name(ref: Ref | None) -> ReleaseId | None:
        return None if ref is None else ref.id

    return ReportedLine(
        channel=line.channel,
        active=name(line.active),
        previous=name(line.previous),
        trial=name(line.trial),
        soaking=line.soaking,
        pin=name(line.pin),
    )


def _is_news(report: Report, last: Report) -> bool:
    """Whether anything changed, an update ended otherwise than the last one, or a day went by (or the clock back).

    That nothing was to be done, or that a repository is still out of reach, is no news: a card wears out by writing.
    """
    done, done_before = _endings(report), _endings(last)
    same = msgspec.structs.replace(report, counter=last.counter, at=last.at, outcomes=last.outcomes)
    return same != last or bool(done and done != done_before) or not 0 <= report.at - last.at < EVERY_S


def _endings(report: Report) -> list[tuple[str, ...]]:
    return [
        (outcome.channel, outcome.ending, outcome.release or "", str(outcome.exit_code))
        for outcome in report.outcomes
        if outcome.ending not in ("current", "held")
    ]

"""THE SYNC LINK: one look at the repository, or one update, from what is trusted to what serves.

    trust.refresh -> each channel: judge -> manifest -> has this device what it needs -> delivery: fetch
        -> look again (paused meanwhile?) -> delivery: seal and put away -> activation: trial, switch -> collect

Who calls holds the lock (device_agent/sync/lock.py). Every failure is an `Outcome`; one channel's does not hold up
the others, and none touches what is active.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from device_agent.releases.records import Installed, Ref, State
from device_agent.sync.delivery import Parcel, Receipt
from device_agent.sync.judging import Here, Verdict, agree, forgiven, judge, lacking
from device_agent.sync.records import (
    Cost,
    Ending,
    LinkSettings,
    Listed,
    Offer,
    Outcome,
    Progress,
    Source,
    Stop,
    Tell,
    Trusting,
    View,
)
from edgekit.errors import (
    CorruptRelease,
    EdgekitError,
    NotInRepository,
    Refused,
    StorageFailed,
    TrustLost,
    Unreachable,
    Untrusted,
)
from edgekit.release import channel as channels
from edgekit.release import manifest
from edgekit.release.channel import MAX_CHANNEL_BYTES, Device
from edgekit.release.manifest import MAX_RELEASE_BYTES, Release
from edgekit.release.names import channel_target, release_target

log = logging.getLogger(__name__)

STOPPED = "it was told to stop; what was fetched is kept, and the next update goes on from there"


class Keeping(Protocol):
    """What is asked of the store (device_agent/releases/store.py)."""

    def state(self) -> State:
        """The record."""

    def change(self, event: Callable[[State], State]) -> State:
        """Replace it by what `event` makes of it, durably."""

    def collect(self, wanted: Collection[Ref] = ()) -> int:
        """Delete what nobody needs; bytes that are free now. These releases stay, however much of them is here."""


class Activating(Protocol):
    """What is asked of the activation (device_agent/activation)."""

    def try_release(self, channel: str, ref: Ref, *, tell: Tell) -> None:
        """Trial, switch, and the beginning of the soak. Raises FailedTrial."""

    def resume(self) -> None:
        """Go on where a crash or a power cut left off."""


class Delivering(Protocol):
    """How bytes come (device_agent/sync/delivery.py)."""

    def is_here(self, ref: Ref) -> bool:
        """Whether it is whole on disk already."""

    def cost(self, release: Release, view: View, source: Source) -> Cost:
        """What it would take."""

    def fetch(self, parcel: Parcel, view: View, source: Source, *, tell: Tell, stop: Stop) -> Receipt:
        """Every byte into staging."""

    def put_away(self, parcel: Parcel, *, tell: Tell) -> Installed:
        """From staging to its place."""


class Connect(Protocol):
    """Opens the repositories as one source."""

    def __call__(self, settings: LinkSettings, stop: Stop) -> Source:
        """Raises UsageError or Unreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The rooms that the link leads through."""

    trust: Trusting
    connect: Connect
    store: Keeping
    delivery: Delivering
    activation: Activating


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass: where bytes come from, what is trusted, who hears of progress, and who may end it."""

    source: Source
    view: View
    tell: Tell
    stop: Stop


@dataclass(frozen=True, slots=True)
class _Judged:
    """A channel and what it means here, or why that could not be found out."""

    channel: str
    verdict: Verdict | EdgekitError

    @property
    def listed(self) -> Listed | None:
        """The release that is to be installed."""
        return self.verdict.listed if isinstance(self.verdict, Verdict) and self.verdict.ending is None else None

    @property
    def ref(self) -> Ref | None:
        """That release, as the store calls it."""
        return None if self.listed is None else _ref(self.listed)


class Link:
    """One device's link. `device` and `here` are what it is; `ticks` only goes forward, in seconds."""

    def __init__(
        self,
        parts: Parts,
        settings: LinkSettings,
        *,
        device: Device,
        here: Here,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._device = device
        self._here = here
        self._ticks = ticks

    def look(self, *, stop: Stop | None = None) -> tuple[Offer, ...]:
        """What the channels have for this device, and what that would take. Installs nothing.

        Raises SyncError if no repository can be asked, or none is to be trusted.
        """
        stop = stop or Event()
        with closing(self._connected(stop, anytime=True)) as source:
            now = _Pass(source, self._parts.trust.refresh(source), lambda _: None, stop)
            return tuple(self._offer(self._judged(channel, now), now) for channel in self._settings.channels)

    def update(self, tell: Tell, stop: Stop, *, anytime: bool = False) -> tuple[Outcome, ...]:
        """Have every channel's release installed and serving; what became of each. `anytime`: whatever the windows are.

        Never raises SyncError. What was fetched when `stop` is set is found again by the next one.
        """
        try:
            with closing(self._connected(stop, anytime=anytime)) as source:
                tell(Progress(phase="checking"))
                self._parts.activation.resume()
                view, trouble = self._refreshed(source)
                now = _Pass(source, view, tell, stop)
                judged = [self._judged(channel, now) for channel in self._settings.channels]
                self._collect(judged)  # what has soaked since the last time left one behind: room for what is fetched
                found = {one.channel: self._followed(one, now) for one in sorted(judged, key=_models_first)}
                self._collect(judged)
        except (EdgekitError, OSError) as error:
            return tuple(_ended(channel, error, stop) for channel in self._settings.channels)
        finally:
            tell(Progress())
        return tuple(_with_trouble(found[channel], trouble) for channel in self._settings.channels)

    # --- what is trusted --------------------------------------------------------------------------

    def _connected(self, stop: Stop, *, anytime: bool) -> Source:
        settings = dataclasses.replace(self._settings, windows=()) if anytime else self._settings
        return self._parts.connect(settings, stop)

    def _refreshed(self, source: Source) -> tuple[View, Untrusted | None]:
        """What is trusted now, and what is wrong with the repository if that comes from before.

        One that shows older metadata than was seen before (a stick from last month) changes nothing, but its packs are
        as good as any: they are held against what was signed. Raises SyncError.
        """
        try:
            return self._parts.trust.refresh(source), None
        except Untrusted as problem:
            view = self._parts.trust.last()
            if view is None:
                raise
            log.warning("going on with what was trusted before: %s", problem)
            return view, problem

    # --- what is wanted ---------------------------------------------------------------------------

    def _judged(self, name: str, now: _Pass) -> _Judged:
        try:
            verdict = self._verdict(name, now)
        except EdgekitError as error:
            return _Judged(name, error)
        return _Judged(name, verdict)

    def _verdict(self, name: str, now: _Pass) -> Verdict:
        if name not in now.view.channels:
            raise NotInRepository(f"the channel {name}")
        path = channel_target(name)
        channel = channels.parse(self._parts.trust.target(path, now.source, limit=MAX_CHANNEL_BYTES))
        if channel.name != name:
            raise Untrusted(f"the file of the channel {name} says that it is {channel.name}")
        return judge(channel, now.view, self._parts.store.state(), self._device)

    def _parcel(self, name: str, listed: Listed, now: _Pass) -> Parcel:
        """The release's manifest.

        Raises Untrusted, CorruptRelease, Unreachable, or Refused if it needs more than this device has.
        """
        limit = min(MAX_RELEASE_BYTES, listed.manifest_bytes)
        raw = self._parts.trust.target(release_target(listed.id), now.source, limit=limit)
        release = manifest.parse(raw)
        agree(listed, release)
        if problem := lacking(release.requires, self._here):
            raise Refused(f"{listed.id}: {problem}")
        return Parcel(channel=name, ref=_ref(listed), release=release, manifest=raw)

    def _offer(self, judged: _Judged, now: _Pass) -> Offer:
        verdict, listed = judged.verdict, judged.listed
        if isinstance(verdict, EdgekitError):
            return Offer(channel=judged.channel, release=None, reason=str(verdict))
        if listed is None:
            name = None if verdict.listed is None else verdict.listed.id
            return Offer(channel=judged.channel, release=name, reason=verdict.reason or "it is here already")
        try:
            parcel = self._parcel(judged.channel, listed, now)
            here = self._parts.delivery.is_here(parcel.ref)
            cost = None if here else self._parts.delivery.cost(parcel.release, now.view, now.source)
        except EdgekitError as error:
            return Offer(channel=judged.channel, release=listed.id, reason=str(error))
        return Offer(channel=judged.channel, release=listed.id, reason=verdict.reason or "offered", cost=cost)

    # --- and has ----------------------------------------------------------------------------------

    def _followed(self, judged: _Judged, now: _Pass) -> Outcome:
        began = self._ticks()
        try:
            outcome = self._installed(judged, now)
        except (EdgekitError, OSError) as error:
            outcome = _ended(judged.channel, error, now.stop, judged.listed)
        return dataclasses.replace(outcome, seconds=round(self._ticks() - began, 3))

    def _installed(self, judged: _Judged, now: _Pass) -> Outcome:
        """THE MAIN PATH of one channel. Raises what went wrong."""
        name, verdict, listed = judged.channel, judged.verdict, judged.listed
        if isinstance(verdict, EdgekitError):
            raise verdict
        self._forgive(name, verdict)
        if listed is None:
            return verdict.outcome(name)
        parcel = self._parcel(name, listed, now)
        receipt = Receipt()
        if not self._parts.delivery.is_here(parcel.ref):
            receipt = self._parts.delivery.fetch(parcel, now.view, now.source, tell=now.tell, stop=now.stop)
            if changed := self._changed_meanwhile(parcel, now):
                return dataclasses.replace(changed, moved_bytes=receipt.moved_bytes)
            self._parts.delivery.put_away(parcel, tell=now.tell)
        self._parts.activation.try_release(name, parcel.ref, tell=now.tell)
        return Outcome(
            channel=name,
            ending="installed",
            release=parcel.ref.id,
            reason=verdict.reason,
            moved_bytes=receipt.moved_bytes,
            reused_bytes=receipt.reused_bytes,
        )

    def _collect(self, judged: Sequence[_Judged]) -> None:
        """What is wanted stays, also where a crash came before the record named it; not what has failed here."""
        state = self._parts.store.state()
        refs = (one.ref for one in judged)
        self._parts.store.collect(tuple(ref for ref in refs if ref is not None and not state.refused(ref.sha256)))

    def _changed_meanwhile(self, parcel: Parcel, now: _Pass) -> Outcome | None:
        """Fetching may have taken a night: what the channel says now counts. None: it still says the same.

        Where it cannot be asked any more (the stick was pulled), what it said last stands.
        """
        try:
            view = self._parts.trust.refresh(now.source)
            verdict = self._verdict(parcel.channel, dataclasses.replace(now, view=view))
        except (Unreachable, Untrusted) as problem:
            log.info("the channel %s cannot be asked again: %s", parcel.channel, problem)
            return None
        if verdict.ending is not None:
            return verdict.outcome(parcel.channel)
        if verdict.listed is not None and verdict.listed.manifest_sha256 == parcel.ref.sha256:
            return None
        said = f"{parcel.ref.id} was fetched, and meanwhile the channel names another release"
        return Outcome(channel=parcel.channel, ending="held", release=parcel.ref.id, reason=said)

    def _forgive(self, name: str, verdict: Verdict) -> None:
        """A release that failed here is tried again once the channel has named another one in between."""
        if verdict.listed is None:
            return
        digest, state = verdict.listed.manifest_sha256, self._parts.store.state()
        if state.line(name).pin is None and forgiven(state, name, digest) != state:
            self._parts.store.change(lambda before: forgiven(before, name, digest))


def _ref(listed: Listed) -> Ref:
    return Ref(id=listed.id, kind=listed.kind, sequence=listed.sequence, sha256=listed.manifest_sha256)


def _models_first(judged: _Judged) -> bool:
    """Adapters stand beside a model that may come by another channel."""
    return judged.listed is not None and judged.listed.kind == "adapter"


def _ended(channel: str, error: EdgekitError | OSError, stop: Stop, listed: Listed | None = None) -> Outcome:
    """What became of a channel that something went wrong with, be it that somebody has stopped it."""
    outcome = _failure(channel, error, listed)
    if stop.is_set() and not isinstance(error, _REFUSALS):
        return dataclasses.replace(outcome, ending="held", reason=STOPPED, exit_code=0)
    return outcome


def _failure(channel: str, error: EdgekitError | OSError, listed: Listed | None) -> Outcome:
    """What was had and is not to be installed is "refused"; what could not be had, or kept, "failed"."""
    known = error if isinstance(error, EdgekitError) else StorageFailed(str(error))
    ending: Ending = "refused" if isinstance(known, _REFUSALS) else "failed"
    release = None if listed is None else listed.id
    return Outcome(channel=channel, ending=ending, release=release, reason=str(known), exit_code=known.exit_code)


_REFUSALS = (Untrusted, TrustLost, CorruptRelease, Refused)


def _with_trouble(outcome: Outcome, trouble: Untrusted | None) -> Outcome:
    """A repository that is not to be trusted is what is told, and no release, unless its packs were of use."""
    if trouble is None or outcome.ending == "installed":
        return outcome
    return dataclasses.replace(
        outcome, ending="refused", release=None, reason=str(trouble), exit_code=trouble.exit_code
    )

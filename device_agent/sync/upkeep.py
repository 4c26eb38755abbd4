"""Upkeep: the link inside of the agent. Looks when it is time, does what operators wish, and watches what soaks.

Two threads. One does one thing after the other, however long a download takes; the other has a pulse of a second, and
takes over what is recorded (also by another process), commits what has soaked, and goes back from what has a fault.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prometheus_client.metrics_core import Metric

from device_agent import sensors
from device_agent.http.replies.sync import SyncReply
from device_agent.releases.records import not_pinned
from device_agent.releases.scrub import Damage
from device_agent.sync import status
from device_agent.sync.choosing import channel_of
from device_agent.sync.lock import holder
from device_agent.sync.records import Clock, LinkSettings, Offer, Outcome, Progress, View, Wish
from device_agent.sync.schedule import Rhythm, opens_in_s
from device_agent.sync.tally import Tally
from edgekit.errors import Busy, EdgekitError, NotEnrolled, Refused

if TYPE_CHECKING:  # it imports what only a device that is enrolled needs
    from device_agent.sync.passes import Passes
    from device_agent.sync.rooms import Rooms

log = logging.getLogger(__name__)

PULSE_S = 1.0
ENROLMENT_S = 5.0
"""How often a device that is not enrolled looks whether it is."""

MOST_WISHES = 8
VIEW_S = 30.0
"""For so long nobody asks again what is trusted, though another process may know more by now."""

Compose = Callable[[LinkSettings], "Rooms"]
"""The rooms of this device. Raises NotEnrolled, TrustLost, StorageFailed."""

Task = Literal["check", "update", "follow"] | Wish
"""An operator's wish, or by itself: "follow" is an update that keeps to the windows."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was trusted at a moment, and why nobody can tell, if so."""

    view: View | None = None
    problem: str | None = None
    until: float = 0.0


class Upkeep:
    """Implements `Sync` of the HTTP room. `start` begins the threads; `close` ends them, at the next chunk.

    `pulse` is what is to be done every second (Activation.soaked). `ticks` only goes forward, in seconds; `clock` is
    Unix seconds, as this machine believes.
    """

    def __init__(
        self,
        home: Path,
        settings: LinkSettings,
        compose: Compose,
        *,
        pulse: Callable[[], None],
        clock: Clock,
        ticks: Callable[[], float],
        rhythm: Callable[[LinkSettings], Rhythm] = lambda settings: Rhythm(settings.interval_s, settings.windows),
    ) -> None:
        self.tally = Tally()
        self._home = home
        self._settings = settings
        self._compose = compose
        self._beat = pulse
        self._clock = clock
        self._ticks = ticks
        self._make_rhythm = rhythm
        self._passes: Passes | None = None
        self._rhythm: Rhythm | None = None
        self._problem: str | None = None
        self._asked_at: float | None = None
        self._progress = Progress()
        self._offers: Mapping[str, Offer] = {}
        self._told: dict[str, str] = {}
        self._seen = _Seen()
        self._tasks: queue.Queue[Task] = queue.Queue(MOST_WISHES)
        self._doing: Task | None = None
        self._again: Task | None = None  # after what operators wish
        self._waiting: Wish | None = None
        self._changing = threading.Lock()  # who composes, and who looks at what is trusted
        self._awake, self._ending, self._leave = threading.Event(), threading.Event(), threading.Event()
        self._threads = (
            threading.Thread(target=self._work, name="edgekit-updates", daemon=True),
            threading.Thread(target=self._pulse, name="edgekit-soak", daemon=True),
        )

    # --- from the agent ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start both threads; once."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End them. What was fetched stays."""
        self._ending.set()
        self._leave.set()
        self._awake.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def adjust(self, settings: LinkSettings) -> None:
        """Other settings count from now on."""
        with self._changing:
            self._settings, self._passes, self._asked_at = settings, None, None
        self._awake.set()

    def mend(self, damage: Damage) -> None:
        """A scrub has found damage: repair it, or fall back. Raises Busy, NotEnrolled, StorageFailed."""
        self._enrolled().mend(damage, self._ending)

    def readings(self) -> Iterable[Metric]:
        """For the agent's metrics. Nothing where nobody can tell: a scrape must not fail for it."""
        from device_agent.sync.readings import readings

        try:
            return tuple(readings(self.status(), self.tally))
        except EdgekitError as problem:
            log.info("no metrics of updates: %s", problem)
            return ()

    # --- Sync -------------------------------------------------------------------------------------

    def status(self) -> SyncReply:
        """How it is."""
        passes = self._known()
        if passes is None:
            return status.not_enrolled(self._progress, self._problem)
        rooms, now, rhythm = passes.rooms, self._clock(), self._rhythm
        seen = self._look_at_trust(rooms)
        opens_s = opens_in_s(rooms.settings.windows, rhythm.minute(now)) if rhythm else 0.0
        return status.reply(
            status.Facts(
                rooms=rooms,
                record=rooms.store.state(),
                installed=rooms.store.installed(),
                view=seen.view,
                offers=self._offers,
                told=passes.history.read(),
                progress=self._shown(rooms),
                busy=None if self._doing is not None else holder(self._home),
                disk=sensors.disk(self._home),
                next_look_at=rhythm.due() if rhythm else None,
                fetches_at=now + opens_s if opens_s else None,
                problem=seen.problem,
            )
        )

    def check(self) -> None:
        """Look, and install nothing."""
        self._wish("check")

    def update(self) -> None:
        """Look, and install what is there, whatever the schedule says."""
        self._wish("update")

    def rollback(self, channel: str | None) -> None:
        """Go back to the release before."""
        name, rooms = self._named(channel)
        line = rooms.store.state().line(name)
        if line.pin is not None:
            raise Refused(f"{name} is pinned to {line.pin.id}: let it follow its channel first")
        if line.previous is None and (line.trial is None or line.active is None):
            raise Refused(f"{name} has no release to go back to")
        self._wish(Wish(does="rollback", channel=name))

    def pin(self, channel: str | None, release: str | None) -> None:
        """Stay on a release."""
        name, rooms = self._named(channel)
        line = rooms.store.state().line(name)
        known = [ref.id for ref in (line.active, line.previous) if ref is not None]
        if not known:
            raise Refused(not_pinned(line))
        if release is not None and release not in known:
            raise Refused(f"{release} cannot be pinned on {name}, which has: {', '.join(known)}")
        self._wish(Wish(does="pin", channel=name, release=release))

    def unpin(self, channel: str | None) -> None:
        """Follow the channel again."""
        name, _ = self._named(channel)
        self._wish(Wish(does="unpin", channel=name))

    def _named(self, channel: str | None) -> "tuple[str, Rooms]":
        rooms = self._enrolled().rooms
        return channel_of(channel, rooms.store.state(), rooms.settings), rooms

    def _wish(self, task: Task) -> None:
        """Have it done soon; a download that is under way makes room for what an operator wishes, and goes on after.

        Raises Busy if another process is at work, or too much is wished already.
        """
        self._enrolled()
        if self._doing is None and (other := holder(self._home)):
            raise Busy(f"process {other.pid} does `{other.does}`")
        if isinstance(task, str) and isinstance(self._doing, str):
            raise Busy("this agent does it already")
        try:
            self._tasks.put_nowait(task)
        except queue.Full as error:
            raise Busy("this agent has much to do already") from error
        if isinstance(task, Wish):
            if isinstance(self._doing, str):
                self._again = self._doing
            self._leave.set()
        self._awake.set()

    # --- who this device is -----------------------------------------------------------------------

    def _enrolled(self) -> "Passes":
        """Raises NotEnrolled, or what else keeps the link from working."""
        passes = self._known()
        if passes is None:
            raise NotEnrolled(self._problem or "it was never told whom to trust")
        return passes

    def _known(self) -> "Passes | None":
        """What can be done, None if nothing can; looked at now and then, as a device may be enrolled meanwhile."""
        with self._changing:
            now = self._ticks()
            if self._passes is None and (self._asked_at is None or now - self._asked_at >= ENROLMENT_S):
                self._asked_at = now
                self._become()
            return self._passes

    def _become(self) -> None:
        try:
            rooms = self._compose(self._settings)
        except NotEnrolled:
            self._problem = None
            return
        except EdgekitError as problem:
            self._problem = str(problem)
            log.warning("there will be no updates: %s", problem)
            return
        from device_agent.sync.passes import Passes

        self._problem, self._seen = None, _Seen()
        self._passes = Passes(rooms, clock=self._clock)
        self._rhythm = self._make_rhythm(rooms.settings)
        self._rhythm.started(self._clock())

    def _look_at_trust(self, rooms: "Rooms") -> _Seen:
        with self._changing:
            now = self._ticks()
            if now >= self._seen.until:
                try:
                    self._seen = _Seen(rooms.trust.last(), None, now + VIEW_S)
                except EdgekitError as problem:
                    self._seen = _Seen(None, str(problem), now + VIEW_S)
            return self._seen

    def _shown(self, rooms: "Rooms") -> Progress:
        """What goes on; where nothing does, what soaks."""
        if self._progress.phase != "idle":
            return self._progress
        for line in rooms.store.state().lines:
            if line.soaking and line.trial is not None:
                return Progress(phase="soaking", channel=line.channel, release=line.trial.id)
        return self._progress

    # --- the thread that works --------------------------------------------------------------------

    def _work(self) -> None:
        while not self._ending.is_set():
            try:
                self._step()
            except Exception:
                log.exception("bug: an update failed")
            self._awake.wait(PULSE_S)
            self._awake.clear()

    def _step(self) -> None:
        """Everything that is wished, and what is due."""
        passes = self._known()
        if passes is None or self._rhythm is None:
            return
        while (task := self._next(self._rhythm)) is not None and not self._ending.is_set():
            self._doing = task
            self._leave.clear()
            if self._ending.is_set():  # it was set before, and must not be lost
                self._leave.set()
            try:
                is_done = self._do(task, passes, self._rhythm)
            finally:
                self._doing = None
                self._progress = Progress()
                self._seen = _Seen()
            if not is_done:
                return

    def _next(self, rhythm: Rhythm) -> Task | None:
        if (waiting := self._waiting) is not None:
            self._waiting = None
            return waiting
        with contextlib.suppress(queue.Empty):
            return self._tasks.get_nowait()
        if (again := self._again) is not None:
            self._again = None
            return again
        if rhythm.is_due(self._clock()):
            return "follow" if rhythm.may_fetch(self._clock()) else "check"
        return None

    def _do(self, task: Task, passes: "Passes", rhythm: Rhythm) -> bool:
        """False if somebody else has the lock (another process, or a repair): it is to be done at the next pulse."""
        fine = False
        try:
            if isinstance(task, Wish):
                self.tally.note((passes.change(task),))
                return True
            fine = self._checked(passes) if task == "check" else self._updated(passes, anytime=task == "update")
        except Busy as problem:
            log.info("%s waits: %s", task.does if isinstance(task, Wish) else task, problem)
            if isinstance(task, Wish):
                self._waiting = task
            else:
                self._again, fine = task, True
            return False
        except EdgekitError as problem:
            log.warning("%s: %s", task.does if isinstance(task, Wish) else task, problem)
            self._failed(task, passes, problem)
        finally:
            if not isinstance(task, Wish):  # also after a bug of ours, which would else be met again every second
                rhythm.looked(self._clock(), fine=fine)
        return True

    def _checked(self, passes: "Passes") -> bool:
        self._tell(Progress(phase="checking"))
        self._offers = {offer.channel: offer for offer in passes.check(self._leave)}
        return True

    def _updated(self, passes: "Passes", *, anytime: bool) -> bool:
        outcomes = passes.update(self._tell, self._leave, anytime=anytime)
        self.tally.note(outcomes)
        self._offers = {one.channel: _offer(one, self._offers.get(one.channel)) for one in outcomes}
        for one in outcomes:
            said = f"{one.channel}: {one.ending} {one.release or ''} {one.reason}"
            is_news = self._told.get(one.channel) != said  # the same refusal at each look is told once
            self._told[one.channel] = said
            log.log(logging.WARNING if one.exit_code and is_news else logging.INFO, "%s", said)
        return not any(one.exit_code for one in outcomes)

    def _failed(self, task: Task, passes: "Passes", problem: EdgekitError) -> None:
        """What could not even be begun is told like what became of the rest."""
        does, channel = (task.does, task.channel) if isinstance(task, Wish) else (task, None)
        outcome = Outcome(
            channel=channel or "",
            ending="refused" if isinstance(problem, Refused) else "failed",
            release=None,
            reason=str(problem),
            exit_code=problem.exit_code,
        )
        channels = (channel,) if channel else passes.rooms.settings.channels
        passes.history.note(does, [replace(outcome, channel=name) for name in channels])

    def _tell(self, progress: Progress) -> None:
        self._progress = progress

    # --- the pulse --------------------------------------------------------------------------------

    def _pulse(self) -> None:
        said = ""
        while not self._ending.wait(PULSE_S):
            try:
                self._beat()
                said = ""
            except EdgekitError as problem:
                if str(problem) != said:  # and not once a second
                    said = str(problem)
                    log.warning("what serves could not be looked at: %s", said)
            except Exception:
                log.exception("bug: what serves could not be looked at")


def _offer(outcome: Outcome, before: Offer | None) -> Offer:
    """What is known of a channel's offer after an update; what it costs was known before, if it is the same one."""
    cost = before.cost if before is not None and before.release == outcome.release else None
    ended = outcome.ending in ("installed", "current")
    return Offer(
        channel=outcome.channel,
        release=outcome.release,
        reason=outcome.reason or outcome.ending,
        cost=None if ended else cost,
    )

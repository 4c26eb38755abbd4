"""One thing that is done to what is installed, whoever wants it: under the lock, and told afterwards.

`edgekit serve` and the command line do the same here, so that history and reports know of both.
"""

import contextlib
import logging
from collections.abc import Sequence
from contextlib import closing
from typing import Literal

from device_agent.releases.records import Installed
from device_agent.releases.scrub import Damage
from device_agent.sync import content
from device_agent.sync.choosing import channel_of
from device_agent.sync.history import UPDATE, History
from device_agent.sync.lock import updating
from device_agent.sync.records import Change, Clock, Offer, Outcome, Stop, Tell, Wish
from device_agent.sync.reports import Reporter
from device_agent.sync.rooms import Rooms, floors_of
from edgekit.errors import EdgekitError, TrustLost

log = logging.getLogger(__name__)


class Passes:
    """Of one device. `clock` is Unix seconds."""

    def __init__(self, rooms: Rooms, *, clock: Clock) -> None:
        self.rooms = rooms
        self.history = History(rooms.home, clock=clock)
        self._reporter = Reporter(rooms.home, rooms.identity, clock=clock)
        self._clock = clock

    def check(self, stop: Stop) -> tuple[Offer, ...]:
        """What is offered. Raises Busy, SyncError."""
        with updating(self.rooms.home, "check", now=self._clock()):
            offers = self.rooms.link.look(stop=stop)
            self.history.checked()
        return offers

    def update(self, tell: Tell, stop: Stop, *, anytime: bool) -> tuple[Outcome, ...]:
        """Have everything installed that is offered. Raises Busy alone."""
        with updating(self.rooms.home, "update", now=self._clock()):
            outcomes = self.rooms.link.update(tell, stop, anytime=anytime)
            self._told(UPDATE, outcomes)
        return outcomes

    def change(self, wish: Wish) -> Outcome:
        """Go back, stay, or follow again. Raises Busy, Refused, StorageFailed."""
        rooms = self.rooms
        with updating(rooms.home, wish.does, now=self._clock()):
            channel = channel_of(wish.channel, rooms.store.state(), rooms.settings)
            release = self._changed(channel, wish)
            outcome = Outcome(channel=channel, ending=_ENDINGS[wish.does], release=release, reason=_REASONS[wish.does])
            self._told(wish.does, (outcome,))
        return outcome

    def mend(self, damage: Damage, stop: Stop) -> bool:
        """Repair what the disk has lost from the repository. Whether it is whole now. Raises Busy, StorageFailed."""

        def repair(installed: Installed) -> None:
            with closing(self.rooms.connect(self.rooms.settings, stop)) as source:
                others = tuple(one for one in self.rooms.store.installed() if one.ref != installed.ref)
                content.repair(
                    installed,
                    source,
                    paths=damage.paths,
                    bench=self.rooms.store.staging(installed.ref),
                    others=others,
                    tell=lambda _: None,
                    stop=stop,
                    reserve_bytes=self.rooms.settings.reserve_bytes,
                )

        with updating(self.rooms.home, "repair", now=self._clock()):
            return self.rooms.activation.mend(damage, repair)

    # ----------------------------------------------------------------------------------------------

    def _changed(self, channel: str, wish: Wish) -> str | None:
        activation = self.rooms.activation
        if wish.does == "rollback":
            view = None
            with contextlib.suppress(TrustLost):  # going back must work also then
                view = self.rooms.trust.last()
            return activation.rollback(channel, floors=floors_of(view)).id
        if wish.does == "pin":
            return activation.pin(channel, wish.release).id
        activation.unpin(channel)
        active = self.rooms.store.state().line(channel).active
        return None if active is None else active.id

    def _told(self, does: str, outcomes: Sequence[Outcome]) -> None:
        self.history.note(does, outcomes)
        try:
            trials = self.rooms.activation.figures
            self._reporter.note(self.rooms.store.state(), self.rooms.store.installed(), outcomes, trials=trials)
            self._reporter.carry(self.rooms.settings.report, self.rooms.settings.repositories)
        except (EdgekitError, OSError) as error:
            log.warning("no report was made: %s", error)


_ENDINGS: dict[Change, Literal["held", "current"]] = {"rollback": "current", "pin": "held", "unpin": "current"}
_REASONS: dict[Change, str] = {
    "rollback": "somebody went back on this device",
    "pin": "somebody pinned it on this device",
    "unpin": "it follows its channel again",
}

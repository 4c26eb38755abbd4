"""The device of an endurance run: its agent, what its disk holds, and how an update is asked for and waited for."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import OK
from pathlib import Path

from device_agent.releases.records import Line
from device_agent.releases.store import STAGING, SYNC_FOLDER, Store
from device_agent.sync.history import Entry, History
from device_agent.sync.lock import holder
from tests.endurance.asking import WAIT_S, sync
from tests.endurance.processes import Agent, Sync, enrol
from tests.endurance.works import CHANNEL

LOOK_S = 0.05


@dataclass(frozen=True)
class Life:
    """One life of the agent; None between two of them."""

    number: int
    agent: Agent | None


class Stuck(Exception):
    """Something that should have ended has not."""


class Device:
    """In `home`, which is its own."""

    def __init__(self, home: Path, provisioning: Path) -> None:
        self.home = home
        self.store = Store(home)
        self.life = Life(0, None)
        self._history = History(home, clock=time.time)
        enrol(home, provisioning)

    # --- its agent --------------------------------------------------------------------------------

    @property
    def agent(self) -> Agent:
        """The one that runs."""
        assert self.life.agent is not None
        return self.life.agent

    def start(self) -> None:
        """Have an agent that serves, unless one does."""
        if self.life.agent is None:
            self.life = Life(self.life.number + 1, Agent.start(self.home))

    def end(self, how: Callable[[Agent], object]) -> None:
        """Clients see that it is about to end before it does."""
        agent, self.life = self.agent, Life(self.life.number + 1, None)
        how(agent)
        agent.close()

    # --- updates ----------------------------------------------------------------------------------

    @property
    def line(self) -> Line:
        """What the channel has brought so far."""
        return self.store.state().line(CHANNEL)

    @property
    def busy(self) -> bool:
        """Whether some process is at work."""
        return holder(self.home) is not None

    def moment(self) -> str:
        """How far an update is, as the disk tells."""
        line = self.line
        if line.trial is not None:
            return "soaking" if line.soaking else "on trial"
        if not self.busy:
            return "at rest"
        return "fetching" if any((self.home / SYNC_FOLDER / STAGING).iterdir()) else "looking"

    def update(self) -> None:
        """Have the agent look and install; it is under way afterwards."""

        def asked() -> bool:
            return sync(self.agent.port, self.home, "update")[0] == OK  # it may be busy with a repair

        self.until("an update to be accepted", asked)

    def updated(self) -> Entry:
        """Have the agent look and install, and wait for what became of it."""
        before = self.told_last()
        self.update()
        self.until("an update to end", lambda: self.told_last() != before)
        entry = self.told_last()
        assert entry is not None
        return entry

    def synced(self, *arguments: str) -> Entry:
        """The same by a process of its own."""
        before = self.told_last()
        process = Sync(self.home, *arguments)
        self.until("edgekit sync to end", lambda: process.process.poll() is not None)
        entry = self.told_last()
        assert entry is not None
        assert entry != before
        return entry

    def rest(self) -> None:
        """Wait until nobody is at work, and nothing soaks."""
        self.until("the device to come to rest", lambda: not self.busy and not self.line.soaking)

    def told(self, verb: str) -> None:
        """Have an operator's wish done. It may be refused: the release before may be gone."""
        before = self.told_last()
        if sync(self.agent.port, self.home, verb)[0] == OK:
            self.until(verb, lambda: self.told_last() != before)

    def refused(self) -> set[str]:
        """Releases that failed here."""
        return {refusal.release.id for refusal in self.store.state().refusals}

    def told_last(self) -> Entry | None:
        """What the newest update, or wish of an operator, came to."""
        return self._history.read().last(CHANNEL)

    def until(self, what: str, so: Callable[[], object], *, seconds: float = WAIT_S) -> None:
        """Look until something is so. Raises Stuck."""
        began = time.monotonic()
        while not so():
            if time.monotonic() - began > seconds:
                raise Stuck(f"waited in vain for {what}: {self.line}, {self.told_last()}")
            time.sleep(LOOK_S)

"""What a fault can get at: the device, who serves the repository, the build machine, and an update under way."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from device_agent.sync.history import Entry
from tests.endurance.device import Device, Stuck
from tests.endurance.processes import Sync, trial_of
from tests.endurance.works import Signed, Works
from tests.hostile_http import Hostile

Way = Literal["agent", "sync"]
"""Who updates: the agent itself, or `edgekit sync --once` beside it."""

BEGINS_S = 5.0
"""An agent that was told to update does so within this."""

Target = Literal["agent", "sync", "trial"]


@dataclass
class Scene:
    """Of one step. `offered` is what the device should have at its end; `wrong` is told what should not have been.

    `usual_s` is what an update takes on this machine.
    """

    device: Device
    works: Works
    server: Hostile
    draw: random.Random
    folder: Path
    usual_s: float
    offered: Signed
    wrong: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    def any_way(self) -> Way:
        """One of both."""
        return "agent" if self.draw.random() < 0.5 else "sync"

    def begin(self, way: Way, *arguments: str, before: Sequence[str] = ()) -> "Attempt":
        """Start an update."""
        told, now = self.device.told_last(), time.monotonic()
        if way == "agent":
            self.device.update()
            return Attempt(self.device, None, told, now)
        return Attempt(self.device, Sync(self.device.home, *arguments, before=before), told, now)

    def a_while(self) -> float:
        """Seconds; in about as long as an update takes, any moment of it is as likely as any other."""
        return self.draw.uniform(0, self.usual_s)

    def killed(self, target: str) -> None:
        """Somebody was."""
        self.kills[f"{target}, {self.device.moment()}"] += 1

    def must_not_serve(self, release: str, why: str) -> None:
        """Nothing brought it here but a lie."""
        line = self.device.line
        if line.active is not None and line.active.id == release:
            self.wrong.append(f"{release} is active, {why}")


@dataclass
class Attempt:
    """An update that somebody began: another process, or the agent. `told` is what its forerunner had come to."""

    device: Device
    process: Sync | None
    told: Entry | None
    began: float

    def over(self, seconds: float) -> bool:
        """Whether it came to its end within so long."""
        if self.process is not None:
            return self.process.wait(seconds)
        try:
            self.device.until("an update", self._is_told, seconds=seconds)
        except Stuck:
            return False
        return True

    def _is_told(self) -> bool:
        """What could not begin because another process was at work is never told of."""
        is_over = self.device.told_last() != self.told
        return is_over or (not self.device.busy and time.monotonic() - self.began > BEGINS_S)

    def trial(self, seconds: float) -> psutil.Process | None:
        """The trial that it runs, once it does."""
        pid = self.device.agent.process.pid if self.process is None else self.process.process.pid
        found: list[psutil.Process] = []

        def so() -> bool:
            found.extend(filter(None, [trial_of(pid)]))
            return bool(found) or self.over(0)

        try:
            self.device.until("a trial", so, seconds=seconds)
        except Stuck:
            return None
        return found[0] if found else None

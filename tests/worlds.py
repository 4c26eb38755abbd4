"""Time that passes only when somebody waits, for everything that takes a clock and a `Stop`."""

from dataclasses import dataclass, field


@dataclass
class World:
    """A clock, and a Stop whose waiting moves it on. `waited` has every wait; at `stops_at` it says to stop."""

    now: float = 1_700_000_000.0
    stops_at: float = float("inf")
    waited: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def is_set(self) -> bool:
        return self.now >= self.stops_at

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "nobody would ever wake it"
        self.waited.append(timeout)
        self.now = min(self.now + timeout, max(self.now, self.stops_at))
        return self.is_set()


@dataclass
class Crawling(World):
    """Each look at the clock finds it `step_s` later, as if every read of the network had taken that long."""

    step_s: float = 0.0

    def clock(self) -> float:
        self.now += self.step_s
        return self.now

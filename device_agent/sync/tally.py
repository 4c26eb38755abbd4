"""What updates did since the agent started, for its metrics."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

from device_agent.sync.records import Ending, Outcome


class Tally:
    """Counters that only grow. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[Ending] = Counter()
        self._moved_bytes = 0
        self._reused_bytes = 0

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """These became of an update."""
        with self._lock:
            for one in outcomes:
                self._outcomes[one.ending] += 1
                self._moved_bytes += one.moved_bytes
                self._reused_bytes += one.reused_bytes

    def outcomes(self) -> Mapping[Ending, int]:
        """How often each ending came."""
        with self._lock:
            return dict(self._outcomes)

    def bytes(self) -> Mapping[str, int]:
        """Bytes that were fetched, and that were here already."""
        with self._lock:
            return {"fetched": self._moved_bytes, "reused": self._reused_bytes}

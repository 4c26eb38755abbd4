"""Clients that ask a device all the time, and look at every answer."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.endurance.asking import MODEL, NotServed, ask
from tests.endurance.device import Device
from tests.endurance.works import PROMPTS, Works

PAUSE_S = 0.5


class Clients:
    """So many threads. `wrong` has every answer that should not have been; `counts` and `served` the others."""

    def __init__(self, device: Device, works: Works, count: int, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.longest_s = 0.0
        self._device = device
        self._works = works
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(seed + i,), daemon=True) for i in range(count)]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """During the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in self._threads:
                thread.join()

    def _work(self, seed: int) -> None:
        draw = random.Random(seed)
        while not self._ending.wait(PAUSE_S * 2 * draw.random()):
            try:
                self._ask(draw.choice(PROMPTS))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                self.wrong.append(f"a client ended with {error!r}")

    def _ask(self, prompt: str) -> None:
        life = self._device.life
        if life.agent is None:  # between two lives
            self._ending.wait(PAUSE_S)
            return
        began = time.monotonic()
        try:
            answer = ask(life.agent.port, MODEL, prompt)
        except (OSError, http.client.HTTPException) as error:
            self._cut_off(life.number, f"no answer: {error!r}")
            return
        except NotServed as error:
            self._cut_off(life.number, f"no answer: {error}")
            return
        if wrong := self._works.wrong_with(prompt, answer):
            self.wrong.append(wrong)
        elif not answer.whole:
            self._cut_off(life.number, "an answer was cut off")
        else:
            self.counts["answered"] += 1
            self.served[self._works.release_of(answer)] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def _cut_off(self, life: int, what: str) -> None:
        """Nobody's fault if the agent was ended meanwhile."""
        if self._device.life.number == life:
            self.wrong.append(f"{what}, and nobody had ended the agent")
        self.counts["cut off by a kill or a restart"] += 1

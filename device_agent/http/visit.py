"""One request that uses a model, from admission to its last byte: counted, served, written down, whatever happens."""

import threading
import time
from dataclasses import replace

from device_agent.conversation.records import Event, Said, Spent
from device_agent.http.services import Caller, Dialect, Lease, Served, Services, Ticket


class Visit:
    """A caller who was admitted, and the model that answers. `close` must come, once or more often; it sets `served`.

    Making one raises what `Gate.admit` and `Models.lease` raise; nothing is then held.
    """

    def __init__(self, services: Services, caller: Caller, dialect: Dialect, model: str) -> None:
        self._services = services
        self._began = time.monotonic()
        self._first: float | None = None
        self._lock = threading.Lock()
        self._open = True
        self.served: Served | None = None
        self._said: list[str] = []
        self._keeps_texts = services.usage is not None and services.usage.keeps_texts
        self._ticket: Ticket = services.gate.admit(caller)
        try:
            self.lease: Lease = services.models.lease(model)
        except BaseException:
            self._ticket.close()
            raise
        card = self.lease.card
        self._served = Served(
            at=time.time(),
            caller=caller,
            dialect=dialect,
            model=card.id,
            adapter=self.lease.name.adapter,
            sha256=card.sha256,
            input_tokens=0,
            cached_tokens=0,
            output_tokens=0,
            first_token_s=None,
            total_s=0.0,
            finish="error",
        )

    def asked(self, prompt: str) -> None:
        """What was asked, in words: written down only if the agent keeps texts."""
        if self._keeps_texts:
            self._served = replace(self._served, prompt=prompt)

    def heard(self, event: Event) -> None:
        """A part of the answer is there. Its text, of the first choice, is written down if the agent keeps texts."""
        self.first_token()
        if self._keeps_texts and isinstance(event, Said) and event.choice == 0:
            self._said.append(event.text)

    def first_token(self) -> None:
        """Something of the answer is there; only the first call counts."""
        if self._first is None:
            self._first = time.monotonic() - self._began

    def close(self, spent: Spent = Spent(input=0), *, finish: str = "error") -> None:  # noqa: B008 - a frozen record
        """The end: `spent` tokens, and why. Only the first call counts. From any thread."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        self.lease.release()
        self._ticket.close()
        self.served = served = replace(
            self._served,
            input_tokens=spent.input,
            cached_tokens=spent.cached,
            output_tokens=spent.output,
            first_token_s=self._first,
            total_s=time.monotonic() - self._began,
            finish=finish,
            answer="".join(self._said),
        )
        for book in self._services.books:
            book.note(served)

"""From a bundle to rows that run, and what makes them faster once they do: unpacked weights, guesses, saved prompts.

Opening comes first and alone, so that requests are answered soon. What takes longer happens beside, on threads that
give way, and reaches the model between two of its steps.
"""

import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TypeVar

import tokenizers

from device_agent.checked import checked
from device_agent.engine.drafting.guesser import Guesser
from device_agent.engine.drafting.model import ModelDrafter, check_same_vocabulary
from device_agent.engine.graphs.prompt_graph import OnnxPromptGraph
from device_agent.engine.graphs.session import RUNTIME_VERSION, open_prompt_graph, open_rows
from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.kept.warm import WarmFolder, key_of, system_prefix
from device_agent.engine.records import EngineSettings
from device_agent.engine.rows import Rows
from device_agent.engine.scheduling.scheduler import Scheduler
from device_agent.engine.text.prompt import PromptEncoder
from device_agent.engine.twin.prepare import Preparation, Runtime, Stopped
from device_agent.stamps import CHECKED_FOLDER
from edgekit import contract
from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import CorruptBundle, EdgekitError
from edgekit.hardware import usable_cores

log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")

WARM_FOLDER = "cache/warm"
"""Of the agent's folder: prompts that were read ahead."""

_MAX_TOKENIZER_BYTES = 256 << 20

BetweenSteps = Callable[[Callable[[], None]], None]
"""Has a function called by the thread that owns the model, when no step is running."""


class Loader:
    """Opens one bundle, as often as it is asked. `state` is the agent's folder; None: nothing is written."""

    def __init__(self, bundle: Bundle, settings: EngineSettings, state: Path | None) -> None:
        self.bundle = bundle
        self._settings = settings
        self._state = state
        self._between_steps: BetweenSteps | None = None
        self._preparation: Preparation[OnnxPromptGraph] | None = None

    def first(self) -> tuple[tokenizers.Tokenizer, Rows]:
        """The tokenizer, and rows on the settings' threads. Raises as `Model.open` does."""
        return self._checked(self.bundle, lambda: (read_tokenizer(self.bundle), self._rows(self._threads)))

    def open(self, threads: int) -> Rows:
        """Rows once more, on other threads or after they were left. Raises BundleError."""
        rows = self._checked(self.bundle, lambda: self._rows(threads))
        if self._between_steps is not None:
            self._unpack(rows, threads, self._between_steps)
        return rows

    def improve(self, rows: Rows, between_steps: BetweenSteps) -> None:
        """Begin with what makes `rows`, and those of later `open`s, faster. Waits for it if INT8 was asked for."""
        self._between_steps = between_steps
        self._unpack(rows, self._threads, between_steps)
        if self._settings.prefill == "int8" and self._preparation is not None:
            self._preparation.join()

    def complete(self, rows: Rows) -> None:
        """Make `rows` as fast as they get, and wait for that: for who has nothing else to do, as a benchmark."""
        self.improve(rows, lambda chore: chore())
        if self._preparation is not None:
            self._preparation.join()

    def guesser(self, tokenizer: tokenizers.Tokenizer) -> Callable[[], Guesser] | None:
        """What makes a request's guesser, None if nothing is to be guessed.

        Raises UsageError for a draft model with another vocabulary, and what opening it raises.
        """
        if not self._settings.guess:
            return None
        if self._settings.draft is None:
            return Guesser
        bundle = open_bundle(self._settings.draft)
        other, rows = self._checked(
            bundle, lambda: (read_tokenizer(bundle), open_rows(bundle, threads=self._threads, most_rows=1))
        )
        check_same_vocabulary(tokenizer, other, name=str(bundle.folder))
        drafter = ModelDrafter(rows, vocab=self.bundle.manifest.arch.vocab)
        return lambda: Guesser(drafter)

    def read_ahead(self, encoder: PromptEncoder, system: str, scheduler: Scheduler) -> None:
        """See `Model.read_ahead`."""
        ids = system_prefix(encoder.chat, system)
        if not ids:
            log.warning("There is nothing to read ahead: the template writes no system prompt.")
            return
        folder, key = self._warm_folder(), key_of(self.bundle, runtime=RUNTIME_VERSION)
        found = folder.load(key) if folder else None
        if found and found[0] == ids:
            scheduler.warm(*found)
            return
        prepared = scheduler.prepare(ids)

        def keep() -> None:
            try:
                snapshot = prepared.result()
            except CancelledError:  # the agent ends
                return
            except EdgekitError as error:
                log.warning("The system prompt was not read ahead: %s", error)
                return
            scheduler.warm(ids, snapshot)
            if folder:
                folder.save(key, ids, snapshot)

        threading.Thread(target=keep, name="read-ahead", daemon=True).start()

    def close(self) -> None:
        """End what is being prepared, and wait for that."""
        self._between_steps = None
        if self._preparation is not None:
            self._preparation.stop()

    @property
    def _threads(self) -> int:
        return self._settings.threads or usable_cores()

    def _rows(self, threads: int) -> Rows:
        return open_rows(self.bundle, threads=threads)

    def _checked(self, bundle: Bundle, load: Callable[[], Loaded]) -> Loaded:
        return checked(bundle, load, remembered=self._state / CHECKED_FOLDER if self._state else None)

    def _warm_folder(self) -> WarmFolder | None:
        manifest = self.bundle.manifest
        return WarmFolder(self._state / WARM_FOLDER, manifest.arch, manifest.cache) if self._state else None

    def _unpack(self, rows: Rows, threads: int, between_steps: BetweenSteps) -> None:
        """Have the INT8 twin of the weights read long prompts into `rows`, as soon as there is one."""
        if self._preparation is not None:
            self._preparation.stop()
            self._preparation = None
        if self._state is None or not isinstance(rows, OnnxRows):
            return

        known = weakref.ref(rows)  # rows that were left meanwhile are not kept in memory for this

        def runtime() -> Runtime[OnnxPromptGraph]:
            def opened(path: Path) -> OnnxPromptGraph:
                return open_prompt_graph(path, self.bundle, threads=threads, crossover=1)

            current = known()
            if current is None:
                raise Stopped
            return Runtime(open_graph=opened, rows=current.beside(), version=RUNTIME_VERSION, threads=threads)

        def ready(graph: OnnxPromptGraph) -> None:
            if (current := known()) is not None:
                between_steps(lambda: current.attach(graph))

        self._preparation = Preparation(self.bundle, self._state, self._settings.prefill, runtime, ready)
        self._preparation.start()


def read_tokenizer(bundle: Bundle) -> tokenizers.Tokenizer:
    """The bundle's tokenizer.json. Raises CorruptBundle."""
    raw = bundle.read(contract.TOKENIZER_FILE, limit_bytes=_MAX_TOKENIZER_BYTES)
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(raw)
    except Exception as error:  # the library raises plain Exception
        raise CorruptBundle(str(bundle.folder), f"{contract.TOKENIZER_FILE}: {error}") from error
    tokenizer.no_truncation()  # a tokenizer.json may ask for both, with lengths of its author's own
    tokenizer.no_padding()
    return tokenizer

"""From an entry of the shelf to a model in memory."""

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_agent import pages
from device_agent.engine.records import EngineSettings
from device_agent.model import EmbeddingModel, Model
from device_agent.shelf.records import Adapter, Entry, Opened
from edgekit import contract
from edgekit.errors import CorruptBundle, EdgekitError, TemplateError
from edgekit.manifest import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Opens bundles with these settings: an `Opener`.

    `state` is the agent's folder, see `Model.open`. `system` is a system prompt to read ahead. `after` is called
    whenever a model that generates was opened.
    """

    engine: EngineSettings = field(default_factory=EngineSettings)
    state: Path | None = None
    system: str | None = None
    after: Callable[[], object] | None = None

    def __call__(self, entry: Entry) -> Opened:
        """Load a bundle. Raises what `Model.open` does."""
        return self._encoder(entry) if entry.manifest.embedding is not None else self._model(entry)

    def _model(self, entry: Entry) -> Opened:
        # The shelf closes idle models wholly; the engine need not leave memory by itself.
        settings = replace(self.engine, idle_unload_s=None)
        model = Model.open(entry.folder, engine=settings, state=self.state)
        try:
            _check_same(entry, model.manifest)
            if self.system is not None:
                _read_ahead(model, self.system, name=entry.id)
        except BaseException:
            model.close()
            raise
        if self.after is not None:
            self.after()
        adapters = Adapting(model, entry.id)
        adapters.adapt(entry)

        return Opened(model=model, adapt=adapters.adapt, close=model.close, sweep=partial(_sweep, entry))

    def _encoder(self, entry: Entry) -> Opened:
        encoder = EmbeddingModel.open(entry.folder, threads=self.engine.threads, state=self.state)
        _check_same(entry, encoder.manifest)
        return Opened(encoder=OneAtATime(encoder), sweep=partial(_sweep, entry))


class TakesAdapters(Protocol):
    """What is asked of a model that LoRA adapters can be added to (`Model`)."""

    def add_adapter(self, folder: Path) -> object:
        """Let requests ask for it; one of the same name is replaced. Raises BundleError or InvalidRequest."""

    def remove_adapter(self, name: str) -> None:
        """Let requests ask for it no more."""


class Adapting:
    """The adapters of one model in memory, which change when the shelf is read again; the model stays as it is."""

    def __init__(self, model: TakesAdapters, name: str) -> None:
        self._model = model
        self._name = name
        self._has: dict[str, Adapter] = {}
        self._turn = threading.Lock()

    def adapt(self, entry: Entry) -> None:
        """Add what is new or was changed, and take away what is gone. What cannot be used is logged."""
        with self._turn:
            for name in self._has.keys() - entry.adapters.keys():
                self._model.remove_adapter(name)
                del self._has[name]
            for name, adapter in entry.adapters.items():
                if self._has.get(name) != adapter:
                    self._add(name, adapter)

    def _add(self, name: str, adapter: Adapter) -> None:
        try:
            self._model.add_adapter(adapter.folder)
        except (EdgekitError, OSError) as error:
            log.warning("the adapter %s of %s cannot be used: %s", name, self._name, error)
        else:
            self._has[name] = adapter


class OneAtATime:
    """Implements `Encoder`: requests compute one after the other, since each takes all cores."""

    def __init__(self, encoder: EmbeddingModel) -> None:
        self._encoder = encoder
        self._turn = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """The bundle's facts."""
        return self._encoder.manifest

    def tokens(self, text: str, *, truncate: bool = False) -> tuple[int, ...]:
        """Ids of a text. Raises ContextOverflow or InvalidRequest."""
        return self._encoder.tokens(text, truncate=truncate)

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> npt.NDArray[np.float32]:
        """One vector for each text: [texts, dimension]."""
        with self._turn:
            return self._encoder.embed(texts, truncate=truncate)


def _sweep(entry: Entry) -> None:
    """Give memory back to the system: objects that refer to themselves, pages of the file, what the allocator keeps."""
    gc.collect()
    pages.let_go(entry.folder / contract.DATA_FILE)


def _check_same(entry: Entry, manifest: Manifest) -> None:
    """What was opened must be what the shelf says that it is. Raises CorruptBundle."""
    if manifest != entry.manifest:
        raise CorruptBundle(str(entry.folder), "it was replaced since the shelf was read; reload the agent")


def _read_ahead(model: Model, system: str, *, name: str) -> None:
    try:
        model.read_ahead(system)
    except TemplateError as error:
        log.warning("%s reads no system prompt ahead: %s", name, error)

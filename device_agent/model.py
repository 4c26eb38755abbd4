"""A bundle opened in this process: two lines of Python, no server.

`Model` generates text:

```python
from device_agent import Model

with Model.open("my-model") as model:
    for piece in model.chat([{"role": "user", "content": "What is the capital of France?"}]):
        print(piece, end="", flush=True)
```

`EmbeddingModel` turns texts into vectors:

```python
from device_agent import EmbeddingModel

vectors = EmbeddingModel.open("my-encoder").embed(["a text", "another one"])  # float32 [2, dimension]
```
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt
import tokenizers

from device_agent.adapters import Adapters
from device_agent.checked import checked
from device_agent.engine.embed import Embedder
from device_agent.engine.grammars.guide import Grammars
from device_agent.engine.graphs.session import open_embedder
from device_agent.engine.records import GREEDY, EngineSettings, EngineState, Generation, Sampling
from device_agent.engine.rows import Rows
from device_agent.engine.scheduling.answers import QueuedAnswer
from device_agent.engine.scheduling.scheduler import Scheduler
from device_agent.engine.scheduling.sequence import Language
from device_agent.engine.text.prompt import PromptEncoder
from device_agent.engine.text.spelling import Spelling
from device_agent.loader import Loader, read_tokenizer
from device_agent.stamps import CHECKED_FOLDER
from edgekit.adapter import AdapterManifest
from edgekit.bundle import Bundle, open_bundle
from edgekit.chat import Message, Tool, bundle_template
from edgekit.errors import InvalidRequest
from edgekit.hardware import usable_cores
from edgekit.manifest import Manifest

Turn = Message | Mapping[str, str]


class Model:
    """A loaded model. Generation runs on a thread of its own, several requests together; any thread may call."""

    def __init__(
        self, loader: Loader, rows: Rows, tokenizer: tokenizers.Tokenizer, *, settings: EngineSettings
    ) -> None:
        self.bundle = bundle = loader.bundle
        self.loaded_at = int(time.time())
        tokens = bundle.manifest.tokens
        template = bundle_template(bundle, tokenizer.id_to_token)
        self._encoder = PromptEncoder(tokenizer, template, bos=tokens.bos)
        self._template = template.source if template else None
        self._spelling = Spelling(tokenizer)
        vocab = bundle.manifest.arch.vocab
        self._grammars = Grammars(tokenizer, vocab=vocab, eos=tokens.eos)
        language = Language(tokenizer, frozenset(tokens.eos), vocab, self._grammars.guide)
        self._loader = loader
        self._adapters = Adapters(bundle)
        self._scheduler = Scheduler(rows, loader.open, language, settings, guess=loader.guesser(tokenizer))
        self._scheduler.start()
        loader.improve(rows, self._scheduler.between_steps)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        threads: int | None = None,
        engine: EngineSettings | None = None,
        state: Path | None = None,
        adapters: Sequence[Path] = (),
    ) -> Self:
        """Check every file's hash and load the model on `threads` threads (default: the physical cores).

        `adapters` are folders of LoRAs that requests may ask for (see `add_adapter`). `engine` says how requests share
        the machine; `threads` counts before its own. `state` is a folder of the caller's for what makes the next start
        and long prompts faster (`edgekit.home.home()` is the agent's): there the weights that read prompts are unpacked
        to, prompts that were read ahead are saved, and files that were right and have not been touched since are not
        hashed again. Without it, nothing is written.

        Raises NotABundle, UnsupportedFormat, CorruptBundle, UnsafePath or WrongBase (an adapter of another model), and
        UsageError for settings out of range or for a bundle that does not generate.
        """
        engine = engine or EngineSettings()
        if threads is None:
            threads = usable_cores() if engine.threads is None else engine.threads
        settings = dataclasses.replace(engine, threads=threads)
        loader = Loader(open_bundle(Path(folder)), settings, state)
        tokenizer, rows = loader.first()
        model = cls(loader, rows, tokenizer, settings=settings)
        try:
            for adapter in adapters:
                model.add_adapter(adapter)
        except BaseException:
            model.close()
            raise
        return model

    def read_ahead(self, system: str) -> None:
        """Have the system prompt `system` read before somebody asks with it, or take it from the state folder.

        Requests that begin with it then start at their own words. What is to be read is read when there is nothing
        else to do; this does not wait for it. Raises TemplateError if the model's template takes no system prompt.
        """
        self._loader.read_ahead(self._encoder, system, self._scheduler)

    @property
    def manifest(self) -> Manifest:
        """What `bundle.json` says."""
        return self.bundle.manifest

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together may be this long."""
        return self.manifest.arch.context

    @property
    def template(self) -> str | None:
        """Source of the chat template, None if the bundle has none."""
        return self._template

    def chat_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), opening: str = ""
    ) -> tuple[int, ...]:
        """Ids of the rendered chat, and of `opening`: text with which the answer is made to begin.

        Control tokens in `opening` are text, as they are in messages and tools. Raises TemplateError.
        """
        return self._encoder.chat(messages, tools, opening)

    def rendered(self, messages: Sequence[Message], *, tools: Sequence[Tool] = ()) -> str:
        """The rendered chat as text, for people. Raises TemplateError."""
        return self._encoder.rendered(messages, tools)

    def text_prompt(self, text: str) -> tuple[int, ...]:
        """Ids of plain text; special tokens in it are read as text."""
        return self._encoder.text(text)

    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 of a token, perhaps a part of a character; a special token's name."""
        return self._spelling.token_bytes(token_id)

    def token_id(self, text: str) -> int | None:
        """The id of the special token with this name, if there is one."""
        return self._spelling.token_id(text)

    def text_of(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included."""
        return self._spelling.text_of(ids)

    def submit(self, generation: Generation, *, on_piece: Callable[[], None] | None = None) -> QueuedAnswer:
        """Queue a request; `on_piece` is called, on another thread, after each piece or error that can be read.

        A grammar is compiled before this returns. Raises ContextOverflow, InvalidRequest (also for a grammar that is
        none, or an unknown adapter), Overloaded or ShuttingDown.
        """
        lora = self._adapters.named(generation.adapter)
        return self._scheduler.submit(generation, lora=lora, on_piece=on_piece)

    @property
    def adapters(self) -> Sequence[str]:
        """Names of the LoRA adapters that requests may ask for."""
        return [manifest.name for manifest in self._adapters.manifests()]

    def adapter_manifests(self) -> Sequence[AdapterManifest]:
        """What `adapter.json` says of each of them, in the order of `adapters`."""
        return self._adapters.manifests()

    def add_adapter(self, folder: str | Path) -> AdapterManifest:
        """Let requests ask for the adapter in `folder` from now on; one of the same name is replaced.

        The model need not be loaded again, and requests that run are not disturbed. Raises NotABundle,
        UnsupportedFormat, CorruptBundle, UnsafePath, or WrongBase for an adapter of another model or a model that takes
        none.
        """
        manifest, before = self._adapters.add(Path(folder))
        if before is not None:
            self._scheduler.forget_adapter(before)
        return manifest

    def remove_adapter(self, name: str) -> None:
        """Let requests ask for it no more; those that have it end with it. Raises InvalidRequest for an unknown one."""
        self._scheduler.forget_adapter(self._adapters.remove(name))

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        stop: str | Sequence[str] = (),
    ) -> Iterator[str]:
        """Continue `prompt` as it is; yields text as it becomes final. Greedy unless `sampling` says otherwise.

        Nothing is computed before the first piece is asked for, nor after the iterator is closed or forgotten. The
        first piece may raise what `submit` raises.
        """
        return self._pieces(self.text_prompt(prompt), max_tokens, sampling, stop)

    def chat(
        self,
        messages: Sequence[Turn],
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        stop: str | Sequence[str] = (),
    ) -> Iterator[str]:
        """Answer a conversation; each message has `role` (system, user, assistant) and `content`.

        As `generate`. Raises TemplateError, or InvalidRequest for something that is not a message.
        """
        return self._pieces(self.chat_prompt([_message(turn) for turn in messages]), max_tokens, sampling, stop)

    def _pieces(
        self, prompt: tuple[int, ...], max_tokens: int | None, sampling: Sampling | None, stop: str | Sequence[str]
    ) -> Iterator[str]:
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        generation = Generation(prompt=prompt, sampling=sampling or GREEDY, max_tokens=max_tokens, stop=stops)
        answer = self.submit(generation)
        try:
            yield from (piece.text for piece in answer if piece.text)
        finally:
            answer.cancel()  # a caller who stops reading stops the model

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn, running ones not counted."""
        return self._scheduler.depth()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._scheduler.busy

    @property
    def engine(self) -> Scheduler:
        """Who runs the requests: its state, its threads, its duty, prefixes to keep."""
        return self._scheduler

    def state(self) -> EngineState:
        """What the engine is doing, and what it did so far."""
        return self._scheduler.state()

    def close(self, *, finish: bool = False) -> None:
        """End generation: cancel what runs, or let it `finish`. The model cannot be used afterwards."""
        self._scheduler.close(finish=finish)
        self._grammars.close()
        self._loader.close()

    def __enter__(self) -> Self:
        """As a context manager it closes itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class EmbeddingModel:
    """A loaded encoder. Any thread may call; texts are computed on the caller's."""

    def __init__(self, bundle: Bundle, embedder: Embedder) -> None:
        self.bundle = bundle
        self._embedder = embedder

    @classmethod
    def open(cls, folder: str | Path, *, threads: int | None = None, state: Path | None = None) -> Self:
        """Check every file's hash and load the model on `threads` threads (default: the physical cores).

        `state` is as for `Model.open`. Raises as `Model.open`; UsageError for a bundle that makes no vectors.
        """
        bundle = open_bundle(Path(folder))

        def load() -> Embedder:
            return open_embedder(bundle, read_tokenizer(bundle), threads=usable_cores() if threads is None else threads)

        return cls(bundle, checked(bundle, load, remembered=state / CHECKED_FOLDER if state else None))

    @property
    def manifest(self) -> Manifest:
        """What `bundle.json` says."""
        return self.bundle.manifest

    def tokens(self, text: str, *, truncate: bool = False) -> tuple[int, ...]:
        """Ids of a text as the model reads it. Raises as `embed` does."""
        return self._embedder.tokens(text, truncate=truncate)

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> npt.NDArray[np.float32]:
        """One vector for each text: float32 [texts, dimension].

        Raises ContextOverflow if a text is too long and `truncate` does not cut it, InvalidRequest if one has no
        token at all, and BundleError if onnxruntime fails.
        """
        if isinstance(texts, str):  # a text is a sequence of texts too, and hardly ever meant so
            raise InvalidRequest("Give a list of texts, not one text.", param="input")
        return self._embedder.embed(texts, truncate=truncate)


def _message(turn: Turn) -> Message:
    if isinstance(turn, Message):
        return turn
    try:
        return msgspec.convert(turn, Message)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"A message needs `role` and `content`: {error}", param="messages") from error

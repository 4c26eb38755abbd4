"""Fakes that implement the same protocols as the real parts, and do what a test says."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from device_agent.engine.records import FinishReason, Generation, Piece, Timings
from device_agent.http.replies.reports import HealthReply
from device_agent.http.replies.sync import ProgressReply, SyncReply
from device_agent.http.services import Caller, Card, Health, ModelName, Rates, Served, Services, Standing
from edgekit.arch import ModelArch, Rotary
from edgekit.chat import Message, Tool
from edgekit.errors import ContextOverflow, EdgekitError, InvalidRequest, Unauthorised, UnknownModel
from edgekit.manifest import FileEntry, Manifest, Recipe, Requirements, Source, SpecialTokens

VOCAB = 300
TIMINGS = Timings(prompt_tokens=7, prompt_s=0.25, generated_tokens=11, generate_s=0.5, cached_tokens=3)


def manifest(*, name: str = "tiny", version: str = "1.0") -> Manifest:
    """The smallest bundle.json that is valid."""
    arch = ModelArch(
        model_type="llama",
        layers=2,
        hidden=64,
        heads=4,
        kv_heads=2,
        head_dim=16,
        intermediate=96,
        vocab=VOCAB,
        context=256,
        norm_eps=1e-5,
        rotary=Rotary(dim=16, base=10_000.0),
        activation="silu",
        tied=True,
    )
    return Manifest(
        format=1,
        name=name,
        version=version,
        arch=arch,
        quant=Recipe(precision="int4", method="rtn", weights={}),
        files=(FileEntry("model.onnx", 1_000, "0" * 64), FileEntry("model.onnx.data", 96_000_000, "1" * 64)),
        requires=Requirements(
            onnxruntime="1.31", disk_bytes=96_001_000, weight_bytes=96_000_000, kv_bytes_per_token=1_024
        ),
        tokens=SpecialTokens(eos=(2,)),
        source=Source(kind="gguf", file="tiny.gguf"),
        quality={},
        golden=(),
    )


def script(*texts: str, finish: FinishReason = "stop") -> list[Piece]:
    """Pieces of one token each, and a last one without text that ends the answer."""
    pieces = [Piece(text=text, tokens=(10 + index,)) for index, text in enumerate(texts)]
    return [*pieces, Piece(text="", tokens=(2,), finish=finish, timings=TIMINGS)]


class FakeAnswer:
    """Gives out what was pushed, in order; `cancelled` is set when someone stops it."""

    def __init__(self, on_piece: Callable[[], None] | None = None) -> None:
        self._on_piece = on_piece
        self.cancelled = threading.Event()
        self.polled = threading.Event()
        self._pushed: queue.SimpleQueue[Piece | Exception] = queue.SimpleQueue()

    def push(self, *items: Piece | Exception) -> None:
        for item in items:
            self._pushed.put(item)
            if self._on_piece is not None:
                self._on_piece()

    def next(self, timeout_s: float | None = None) -> Piece | None:
        self.polled.set()
        try:
            item = self._pushed.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, Exception):
            raise item
        return item

    def __iter__(self) -> Iterator[Piece]:
        while True:
            piece = self.next()
            if piece is not None:
                yield piece
                if piece.finish:
                    return

    def cancel(self) -> None:
        self.cancelled.set()
        self.push(Piece(text="", finish="cancelled"))


@dataclass
class FakeService:
    """A model that answers every request with `replies`, or, if there are none, with what a test pushes.

    With `scripts` the first request is answered by the first of them, and so on. Every request's record and answer can
    be taken from `generations` and `answers`; a `refusal` is raised instead. A token of a prompt is a character.
    """

    replies: Sequence[Piece | Exception] = ()
    scripts: Sequence[Sequence[Piece | Exception]] = ()
    refusal: EdgekitError | Exception | None = None
    manifest: Manifest = field(default_factory=manifest)
    context_tokens: int = 200
    loaded_at: int = 1_700_000_000
    template: str | None = None
    adapters: Sequence[str] = ()
    specials: Mapping[str, int] = field(default_factory=dict)
    conversations: list[tuple[Message, ...]] = field(default_factory=list)
    toolboxes: list[tuple[Tool, ...]] = field(default_factory=list)
    openings: list[str] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    answers: queue.SimpleQueue[FakeAnswer] = field(default_factory=queue.SimpleQueue)

    def chat_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), opening: str = ""
    ) -> tuple[int, ...]:
        self.conversations.append(tuple(messages))
        self.toolboxes.append(tuple(tools))
        self.openings.append(opening)
        return self.text_prompt(self.rendered(messages, tools=tools) + opening)

    def rendered(self, messages: Sequence[Message], *, tools: Sequence[Tool] = ()) -> str:
        return "\n".join(message.content for message in messages)

    def text_prompt(self, text: str) -> tuple[int, ...]:
        return tuple(ord(character) % VOCAB for character in text)

    def token_bytes(self, token_id: int) -> bytes:
        return chr(token_id).encode()

    def token_id(self, text: str) -> int | None:
        return self.specials.get(text)

    def text_of(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def submit(self, generation: Generation, *, on_piece: Callable[[], None] | None = None) -> FakeAnswer:
        if self.refusal is not None:
            raise self.refusal
        answer = FakeAnswer(on_piece)
        at = len(self.generations)
        answer.push(*(self.scripts[at] if at < len(self.scripts) else self.replies))
        self.generations.append(generation)
        self.answers.put(answer)
        return answer


# --- what is behind the door ----------------------------------------------------------------


@dataclass
class FakeEncoder:
    """A model whose vector of a text is its length, its first character and 2. A token is a character."""

    manifest: Manifest = field(default_factory=lambda: manifest(name="encoder"))
    context_tokens: int = 50
    embedded: list[str] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def tokens(self, text: str, *, truncate: bool = False) -> tuple[int, ...]:
        if len(text) > self.context_tokens and not truncate:
            raise ContextOverflow(len(text), self.context_tokens)
        return tuple(map(ord, text))[: self.context_tokens]

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> npt.NDArray[np.float32]:
        self.before()
        self.embedded.extend(texts)
        found = np.array([[len(text), ord(text[0]), 2] for text in texts], dtype=np.float32)
        normed: npt.NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return normed


@dataclass
class FakeLease:
    """Counts itself back in when it is released."""

    name: ModelName
    card: Card
    held: list[str]
    service: FakeService | None = None
    vectors: FakeEncoder | None = None

    def __post_init__(self) -> None:
        self.held.append(self.card.id)

    @property
    def model(self) -> FakeService:
        if self.service is None:
            raise InvalidRequest(f"The model {self.card.id!r} makes vectors.", param="model")
        return self.service

    @property
    def encoder(self) -> FakeEncoder:
        if self.vectors is None:
            raise InvalidRequest(f"The model {self.card.id!r} generates text.", param="model")
        return self.vectors

    def release(self) -> None:
        if self.card.id in self.held:
            self.held.remove(self.card.id)


@dataclass
class FakeModels:
    """One model that generates, and perhaps one that encodes. Names are taken apart, and adapters believed."""

    service: FakeService = field(default_factory=FakeService)
    encoder: FakeEncoder | None = None
    held: list[str] = field(default_factory=list)
    refusal: EdgekitError | None = None

    def cards(self) -> Sequence[Card]:
        known = [self.service.manifest, *([self.encoder.manifest] if self.encoder else [])]
        return [
            Card(
                id=found.name,
                manifest=found,
                sha256="5" * 64,
                created=self.service.loaded_at,
                active=index == 0,
                loaded=True,
            )
            for index, found in enumerate(known)
        ]

    def card(self, name: str) -> Card:
        for card in self.cards():
            if card.id == name or (not name and card.active):
                return card
        raise UnknownModel(name[:200], ", ".join(card.id for card in self.cards()))

    def lease(self, name: str) -> FakeLease:
        if self.refusal is not None:
            raise self.refusal
        rest, _, strategy = name.partition("@")
        base, _, adapter = rest.partition(":")
        card = self.card(base)
        taken = ModelName(base=card.id, adapter=adapter or None, strategy=strategy or None)
        encodes = self.encoder is not None and card.id == self.encoder.manifest.name
        if encodes:
            return FakeLease(taken, card, self.held, vectors=self.encoder)
        return FakeLease(taken, card, self.held, service=self.service)

    def activate(self, name: str) -> Card:
        return self.card(name)

    def unload(self, name: str) -> Card:
        return self.card(name)


@dataclass
class FakeTicket:
    """Takes itself off the list."""

    admitted: list[Caller]
    caller: Caller

    def close(self) -> None:
        if self.caller in self.admitted:
            self.admitted.remove(self.caller)


@dataclass
class FakeGate:
    """Knows `keys`; who sends none of them is `nobody`, and refused if that is None."""

    keys: Mapping[str, Caller] = field(default_factory=dict)
    nobody: Caller | None = field(default_factory=Caller)
    refusal: EdgekitError | None = None
    admitted: list[Caller] = field(default_factory=list)
    left: Standing = field(default_factory=Standing)

    def identify(self, credential: str | None, *, local: bool) -> Caller:
        found = self.keys.get(credential or "", self.nobody)
        if found is None:
            raise Unauthorised("This agent needs a key.")
        return found

    def admit(self, caller: Caller) -> FakeTicket:
        if self.refusal is not None:
            raise self.refusal
        self.admitted.append(caller)
        return FakeTicket(self.admitted, caller)

    def standing(self, caller: Caller) -> Standing:
        return self.left


@dataclass
class FakeBook:
    """Remembers what was served."""

    pages: list[Served] = field(default_factory=list)

    def note(self, served: Served) -> None:
        self.pages.append(served)


@dataclass
class FakeOperations:
    """Is as well as a test says, and remembers the responses that were counted."""

    state: Health = field(default_factory=lambda: Health(status="ok"))
    rates: Rates = field(default_factory=lambda: Rates(prompt_tokens_per_s=100.0, decode_tokens_per_s=None))
    responses: list[tuple[str, str, int]] = field(default_factory=list)

    def health(self) -> Health:
        return self.state

    def measured(self, model: str) -> Rates:
        return self.rates

    def device(self) -> msgspec.Struct:
        return HealthReply(status="ok")

    def exposition(self, accept: str) -> tuple[bytes, str]:
        return f"accepted {accept}\n".encode(), "text/plain; version=1.0.0; charset=utf-8"

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.responses.append((method, route, status))


@dataclass
class FakeSync:
    """An updater that does nothing, and remembers what was wished; or refuses it."""

    refusal: EdgekitError | None = None
    wishes: list[tuple[str | None, ...]] = field(default_factory=list)

    def status(self) -> msgspec.Struct:
        return SyncReply(
            enrolled=True,
            device="device-1",
            state=ProgressReply(
                phase="idle",
                channel=None,
                release=None,
                done_bytes=0,
                total_bytes=0,
                bytes_per_s=None,
                eta_s=None,
            ),
        )

    def _wish(self, *words: str | None) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.wishes.append(words)

    def check(self) -> None:
        self._wish("check")

    def update(self) -> None:
        self._wish("update")

    def rollback(self, channel: str | None) -> None:
        self._wish("rollback", channel)

    def pin(self, channel: str | None, release: str | None) -> None:
        self._wish("pin", channel, release)

    def unpin(self, channel: str | None) -> None:
        self._wish("unpin", channel)


def services(
    service: FakeService | None = None,
    *,
    models: FakeModels | None = None,
    gate: FakeGate | None = None,
    book: FakeBook | None = None,
    operations: FakeOperations | None = None,
    sync: FakeSync | None = None,
) -> Services:
    """Everything behind the door, faked."""
    return Services(
        models=models or FakeModels(service or FakeService()),
        gate=gate or FakeGate(),
        books=(book or FakeBook(),),
        operations=operations or FakeOperations(),
        sync=sync or FakeSync(),
    )

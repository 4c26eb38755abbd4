"""Fakes that implement the same protocols as the real parts, and do what a test says."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from device_agent.engine.records import FinishReason, Generation, Piece, Timings
from edgekit.arch import ModelArch, Rotary
from edgekit.chat import Message, Tool
from edgekit.errors import EdgekitError
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

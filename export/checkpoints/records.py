"""What a checkpoint shows to the rest of the exporter."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray

from edgekit.chat import ChatTemplate, template_of


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Row-major `shape` (a matrix is [outputs, inputs]) and how it is stored: "float16", "Q4_1", "GPTQ4" ...

    `block_size` is that of `Checkpoint.blocks` where the dtype alone does not say it.
    """

    shape: tuple[int, ...]
    dtype: str
    block_size: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A matrix that the file already holds in quantised blocks along its columns.

    value = scale * code + offset. `codes` is int8 [rows, columns]; `scales` and `offsets` are float32
    [rows, columns / block_size]; without `offsets` they are all zero. `bits` is 4 (codes -8..7) or 8.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    offsets: NDArray[np.float32] | None
    bits: Literal[4, 8]
    block_size: int


@dataclass(frozen=True, slots=True)
class TextFiles:
    """Everything between text and token ids.

    `tokenizer_json` is read by the `tokenizers` library. `eos_ids` all end an answer and are never empty.
    `add_bos` says that plain text must begin with `bos_id`, which `tokenizer_json` does by itself
    when asked for special tokens; a chat template writes its own.
    """

    tokenizer_json: bytes
    tokenizer_config: Mapping[str, object]
    chat_template: str | None
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    add_bos: bool

    def tokenizer(self) -> tokenizers.Tokenizer:
        """`tokenizer_json`, open; it neither cuts nor fills texts, whatever lengths the file asks for."""
        made = tokenizers.Tokenizer.from_str(self.tokenizer_json.decode())
        made.no_truncation()
        made.no_padding()
        return made

    def template(self) -> ChatTemplate | None:
        """The chat template, None if there is none. Raises CorruptBundle if it is not a template."""
        if self.chat_template is None:
            return None
        token = self.tokenizer().id_to_token
        return template_of(self.chat_template, bos=self.bos_id, eos=self.eos_ids[0], token=token)


class Checkpoint(Protocol):
    """A model at rest, in the vocabulary of Hugging Face transformers.

    Values are read when asked for, and only the bytes that were asked for: a checkpoint holds no
    weights in memory, however large its files are.
    """

    @property
    def kind(self) -> Literal["gguf", "huggingface"]:
        """The format."""

    @property
    def file(self) -> str:
        """Name of the file or folder, without its path."""

    @property
    def config(self) -> Mapping[str, object]:
        """`config.json`, or what it would say."""

    @property
    def licence(self) -> str | None:
        """The licence that the checkpoint declares."""

    @property
    def text(self) -> TextFiles:
        """Tokenizer and chat template. Raises CorruptCheckpoint or UnsupportedCheckpoint."""

    def names(self) -> Mapping[str, TensorInfo]:
        """Every tensor of the checkpoint."""

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Items `start` to `stop` of a tensor's first axis: [stop - start, columns], or [stop - start] of a vector.

        Raises MissingTensor, CorruptCheckpoint (a value is NaN or infinite, or the file was cut while open)
        or UnsupportedCheckpoint (stored in a type that is not read).
        """

    def tensor(self, name: str) -> NDArray[np.float32]:
        """All values. Raises as `rows` does."""

    def blocks(self, name: str) -> Blocks | None:
        """The stored blocks of a matrix, or None if it is not stored in blocks of 4 or 8 bits with one scale."""

    def close(self) -> None:
        """Close the files. Harmless when done twice."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""

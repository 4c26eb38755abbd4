"""A LoRA adapter's file: which tensors of a model it changes, and how.

PEFT's checkpoint format (huggingface.co/docs/peft, "PEFT checkpoint format"): adapter_model.safetensors names its
tensors by modules of the model, after `base_model.model.`:

    {module}.lora_A.weight            [rank, inputs]       of a linear layer
    {module}.lora_B.weight            [outputs, rank]
    {module}.lora_embedding_A         [rank, vocab]        of an embedding
    {module}.lora_embedding_B         [hidden, rank]
    {module}.lora_magnitude_vector    [outputs]            of DoRA
    {module}.weight, {module}.bias                         trained whole (modules_to_save, bias)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import AdapterMismatch, CheckpointNotFound, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.adapter_config import TO_MERGED, LoraConfig, read_config
from export.checkpoints.extents import ExtentFile
from export.checkpoints.hf import ADAPTER_WEIGHTS
from export.checkpoints.safetensors_header import read_header
from export.checkpoints.safetensors_values import FLOATS, Located, read_rows, read_tensor

_PREFIX = "base_model.model."
_MAX_NAME_LENGTH = 500

_ROLES = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding A",
    ".lora_embedding_B": "embedding B",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to a matrix: scaling * B A, transposed where the matrix is stored [inputs, outputs].

    With a `magnitude` (DoRA, arXiv:2402.09353) every row of the sum is scaled to that length.
    """

    module: str
    a: Located
    b: Located
    scaling: float
    transposed: bool
    magnitude: Located | None

    def apply(self, base: Floats, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of the adapted matrix, given those of the base. May hold infinities."""
        a = read_tensor(self.a, f"{self.module}.lora_A")
        scaling = np.float32(self.scaling)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.transposed:
                b = read_tensor(self.b, f"{self.module}.lora_B")
                return base + (a[:, start:stop].T @ b.T) * scaling
            adapted = base + (read_rows(self.b, f"{self.module}.lora_B", start, stop) @ a) * scaling
            if self.magnitude is None:
                return adapted
            wanted = read_rows(self.magnitude, f"{self.module}.lora_magnitude_vector", start, stop)
            adapted *= (wanted / np.linalg.norm(adapted, axis=1))[:, None]
            return adapted


class Adapter:
    """An open adapter. Made by `open`; close it."""

    def __init__(
        self,
        folder: Path,
        config: LoraConfig,
        file: ExtentFile,
        layers: Mapping[str, "Layer"],
        whole: Mapping[str, Located],
    ) -> None:
        self.folder = folder
        self.config = config
        self.layers = layers
        """Module -> what is added to its weight."""
        self.whole = whole
        """Tensors that take the place of the model's, under the model's names."""
        self._file = file

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the configuration and the header.

        Raises CheckpointNotFound, CorruptCheckpoint, or UnsupportedCheckpoint (a pickle, or no plain LoRA).
        """
        config = read_config(folder)
        path = folder / ADAPTER_WEIGHTS
        if not path.is_file() and (folder / "adapter_model.bin").is_file():
            raise UnsupportedCheckpoint(
                "the adapter is a pickle (adapter_model.bin); pickles can run code of whoever made them and are never "
                "loaded. Convert it where you trust it: "
                "PeftModel.from_pretrained(MODEL, FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)"
            )
        if not path.is_file():
            raise CheckpointNotFound(f"{folder}: the folder has no {ADAPTER_WEIGHTS}")
        file = ExtentFile(path)
        try:
            tensors = {name: Located(file, stored) for name, stored in read_header(file).items()}
            layers, whole = _sorted(tensors, config, file.name)
        except BaseException:
            file.close()
            raise
        return cls(folder, config, file, layers, whole)

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Layer:
    """The tensors of one adapted module, their shapes checked against each other."""

    module: str
    a: Located
    b: Located
    scaling: float
    is_embedding: bool
    magnitude: Located | None

    @property
    def inputs(self) -> int:
        """Width of the module's input; of an embedding, its vocabulary."""
        return self.a.shape[1]

    @property
    def outputs(self) -> int:
        """Width of the module's output."""
        return self.b.shape[0]

    @property
    def rank(self) -> int:
        """Of the product."""
        return self.a.shape[0]

    def onto(self, *, transposed: bool) -> LowRank:
        """The same for a matrix stored as [outputs, inputs], or the other way round."""
        if transposed and self.magnitude is not None:
            raise UnsupportedCheckpoint(f"the adapter has DoRA on {self.module}, which is no linear layer. {TO_MERGED}")
        return LowRank(self.module, self.a, self.b, self.scaling, transposed, self.magnitude)


def _sorted(
    tensors: Mapping[str, Located], config: LoraConfig, file: str
) -> tuple[dict[str, Layer], dict[str, Located]]:
    """The adapted layers by module, and the tensors that were trained whole."""
    parts: dict[str, dict[str, Located]] = {}
    whole: dict[str, Located] = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: len(item[0])):  # plain names before wrapped ones
        if not name.startswith(_PREFIX) or len(name) > _MAX_NAME_LENGTH:
            raise CorruptCheckpoint(f"the tensor {name[:_MAX_NAME_LENGTH]!r} is none of an adapter", file)
        if tensor.stored.dtype not in FLOATS:
            raise UnsupportedCheckpoint(f"the adapter's tensor {name!r} has the dtype {tensor.stored.dtype}")
        bare = name.removeprefix(_PREFIX)
        suffix = next((suffix for suffix in _ROLES if bare.endswith(suffix)), None)
        if suffix is not None:
            parts.setdefault(bare.removesuffix(suffix), {})[_ROLES[suffix]] = tensor
        elif ".lora_" in bare or "trainable_tokens" in bare:
            raise UnsupportedCheckpoint(f"the adapter holds {name!r}, which is not read. {TO_MERGED}")
        elif ".original_module." not in bare:  # that is what a module of modules_to_save was before
            whole.setdefault(_unwrapped(bare), tensor)
    if not parts and not whole:
        raise CorruptCheckpoint("it holds no tensors", file)
    return {module: _layer(module, roles, config, file) for module, roles in parts.items()}, whole


def _unwrapped(name: str) -> str:
    """A tensor's name in the model: PEFT's wrappers show where it saves whole embeddings beside an adapter."""
    return name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")


def _layer(module: str, roles: Mapping[str, Located], config: LoraConfig, file: str) -> Layer:
    """One module's tensors. Raises CorruptCheckpoint if they contradict each other or the configuration."""
    is_embedding = "embedding A" in roles
    names = ("embedding A", "embedding B") if is_embedding else ("A", "B")
    expected = {*names, *(["magnitude"] if config.use_dora else [])}
    if set(roles) != expected:
        raise CorruptCheckpoint(f"of {module} it holds {sorted(roles)}, but {sorted(expected)} are needed", file)
    a, b, magnitude = roles[names[0]], roles[names[1]], roles.get("magnitude")
    rank = config.rank(module)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise CorruptCheckpoint(
            f"the shapes {list(a.shape)} and {list(b.shape)} of {module} do not make a product of rank {rank}", file
        )
    if magnitude is not None and magnitude.shape != b.shape[:1]:
        raise CorruptCheckpoint(f"the magnitudes of {module} have the shape {list(magnitude.shape)}", file)
    return Layer(module, a, b, config.scaling(module, rank), is_embedding, magnitude)


def mismatch(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> AdapterMismatch:
    """What to say where a tensor of the adapter does not fit the model's."""
    return AdapterMismatch(f"its {name!r} has the shape {list(found)}, but the model's has {list(expected)}")

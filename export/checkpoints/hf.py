"""A Hugging Face folder: config.json, one or many safetensors files, tokenizer files.

A folder of the Hugging Face cache is fine: there every file is a symbolic link into another folder,
so links are followed; the names in the index must still be plain names.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import (
    CheckpointNotFound,
    CorruptCheckpoint,
    MissingTensor,
    UnsupportedCheckpoint,
)
from export.checkpoints.extents import Extent, ExtentFile, read_json_object, require_finite
from export.checkpoints.hf_text import read_text
from export.checkpoints.records import Blocks, TensorInfo, TextFiles
from export.checkpoints.safetensors_header import StoredTensor, read_header

MAX_CONFIG_BYTES = 16 << 20
MAX_INDEX_BYTES = 64 << 20
MAX_SHARDS = 1000
_README_BYTES = 1 << 20

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Stored types whose values are read, and their names in numpy's and torch's words."""

TO_SAFETENSORS = (
    "pickles can run code of whoever made them and are never loaded. Convert it where you trust it: "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)"
)
"""What to do about a pickle."""

_Located = tuple[ExtentFile, StoredTensor]


class HfCheckpoint:
    """See `Checkpoint`. Made by `open`."""

    kind: Literal["huggingface"] = "huggingface"

    def __init__(
        self, folder: Path, config: Mapping[str, object], files: Sequence[ExtentFile], tensors: Mapping[str, _Located]
    ) -> None:
        self.file = folder.resolve().name
        self.config = config
        self._folder = folder
        self._files = files
        self._tensors = tensors
        self._names = {
            name: TensorInfo(stored.shape, _DTYPES.get(stored.dtype, stored.dtype))
            for name, (_, stored) in tensors.items()
        }

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the configuration and every shard's header. Raises as `open_checkpoint` says."""
        if not (folder / "config.json").is_file():
            raise CheckpointNotFound(_without_config(folder))
        config = read_json_object(folder / "config.json", MAX_CONFIG_BYTES)
        if config.get("quantization_config"):
            raise UnsupportedCheckpoint(
                "its weights are quantised already (quantization_config in config.json); give the original, or a GGUF"
            )
        return cls(folder, config, *_locate(folder))

    @property
    def licence(self) -> str | None:
        """`license:` of the README's front matter."""
        readme = self._folder / "README.md"
        if not readme.is_file() or readme.stat().st_size > _README_BYTES:
            return None
        lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()
        if not lines or lines[0].strip() != "---":
            return None
        for line in lines[1:]:
            if line.strip() == "---":
                break
            key, _, value = line.partition(":")
            if key == "license":
                return value.strip().strip("'\"") or None
        return None

    @cached_property
    def text(self) -> TextFiles:
        """Tokenizer and chat template."""
        return read_text(self._folder, self.config)

    def names(self) -> Mapping[str, TensorInfo]:
        """Every tensor of every shard."""
        return self._names

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Items `start` to `stop` of the first axis as float32."""
        file, stored = self._find(name)
        if not stored.shape:
            raise CorruptCheckpoint(f"the tensor {name!r} has no dimensions", file.name)
        if not 0 <= start <= stop <= stored.shape[0]:
            raise ValueError(f"rows {start}..{stop} of {name!r} with shape {stored.shape}")
        item = stored.extent.size // stored.shape[0] if stored.shape[0] else 0
        raw = file.read(Extent(stored.extent.offset + start * item, (stop - start) * item))
        values = _floats(raw, stored.dtype, name).reshape(stop - start, *stored.shape[1:])
        return require_finite(values, name, file.name)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """All values as float32."""
        _, stored = self._find(name)
        return self.rows(name, 0, stored.shape[0] if stored.shape else 0)

    def blocks(self, name: str) -> Blocks | None:
        """None: safetensors of this kind hold plain floats."""
        self._find(name)
        return None

    def close(self) -> None:
        """Close every shard."""
        _close(self._files)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _find(self, name: str) -> _Located:
        if name not in self._tensors:
            raise MissingTensor(name)
        return self._tensors[name]


def _without_config(folder: Path) -> str:
    """What to say about a folder without config.json; names the GGUF file in it if there is one."""
    found = sorted(path.name for path in folder.glob("*.gguf"))
    hint = f"; to export {found[0]}, give the file itself" if found else ""
    return f"{folder}: the folder has no config.json{hint}"


def _locate(folder: Path) -> tuple[list[ExtentFile], dict[str, _Located]]:
    """All shards, open, and every tensor's file and place. Nothing stays open if it fails."""
    weight_map = _weight_map(folder)
    shards = sorted(set(weight_map.values())) or [_only_shard(folder)]
    files: list[ExtentFile] = []
    found: dict[str, _Located] = {}
    try:
        for shard in shards:
            if not (folder / shard).is_file():
                raise CorruptCheckpoint(f"the file {shard}, which its index names, is not there", folder.resolve().name)
            file = ExtentFile(folder / shard)
            files.append(file)
            for name, stored in read_header(file).items():
                # Where two shards hold a name, the index decides; where it is silent, they contradict each other.
                if weight_map.get(name, shard) != shard:
                    continue
                if name in found:
                    raise CorruptCheckpoint(f"the tensor {name!r} is also in {found[name][0].name}", shard)
                found[name] = (file, stored)
        for name, shard in weight_map.items():
            if name not in found:
                raise CorruptCheckpoint(f"it lacks the tensor {name!r}, which the index promises", shard)
    except BaseException:
        _close(files)
        raise
    return files, found


def _only_shard(folder: Path) -> str:
    """`model.safetensors`. Raises UnsupportedCheckpoint or CheckpointNotFound if that is not there."""
    if (folder / "model.safetensors").is_file():
        return "model.safetensors"
    pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if pickles:
        raise UnsupportedCheckpoint(f"its weights are in {pickles[0]}; {TO_SAFETENSORS}")
    raise CheckpointNotFound(f"{folder}: the folder has no model.safetensors")


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> shard, of model.safetensors.index.json; empty without one."""
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return {}
    index = read_json_object(path, MAX_INDEX_BYTES)
    try:
        weight_map = msgspec.convert(index.get("weight_map"), dict[str, str])
    except msgspec.ValidationError as error:
        raise CorruptCheckpoint(f"its weight_map is not a table of names: {error}", path.name) from error
    shards = set(weight_map.values())
    if not shards or len(shards) > MAX_SHARDS:
        raise CorruptCheckpoint(f"its weight_map names {len(shards)} files", path.name)
    for shard in shards:
        if not _is_plain_name(shard):
            raise CorruptCheckpoint(f"it names {shard!r}, which is not a safetensors file of this folder", path.name)
    return weight_map


def _is_plain_name(name: str) -> bool:
    """A file name with no folder, drive or control character in it."""
    return name.endswith(".safetensors") and name.isprintable() and not set(name) & set('/\\:*?"<>|')


def _floats(raw: NDArray[np.uint8], dtype: str, name: str) -> NDArray[np.float32]:
    """Little-endian stored values -> float32, exact."""
    if dtype == "F32":
        return raw.view("<f4").astype(np.float32, copy=False)
    if dtype == "F16":
        return raw.view("<f2").astype(np.float32)
    if dtype == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    raise UnsupportedCheckpoint(f"the tensor {name!r} has the dtype {dtype}; F32, F16 and BF16 are read")


def _close(files: Iterable[ExtentFile]) -> None:
    for file in files:
        file.close()

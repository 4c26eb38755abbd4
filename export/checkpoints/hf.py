"""A Hugging Face folder: config.json, one or many safetensors files of floats or packed weights, tokenizer files.

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
from export.checkpoints.extents import ExtentFile, read_json_object
from export.checkpoints.hf_text import read_text
from export.checkpoints.packed import PackedMatrix, find_packed, packing_of
from export.checkpoints.records import Blocks, TensorInfo, TextFiles
from export.checkpoints.safetensors_header import read_header
from export.checkpoints.safetensors_values import FLOATS, Located, read_rows, read_tensor

MAX_CONFIG_BYTES = 16 << 20
MAX_INDEX_BYTES = 64 << 20
MAX_SHARDS = 1000
_README_BYTES = 1 << 20

TO_SAFETENSORS = (
    "pickles can run code of whoever made them and are never loaded. Convert it where you trust it: "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)"
)
"""What to do about a pickle."""

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt")
"""Pickles that trainers leave beside the weights."""

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""Files of a PEFT folder, which is no model by itself."""


class HfCheckpoint:
    """See `Checkpoint`. Made by `open`."""

    kind: Literal["huggingface"] = "huggingface"

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, object],
        files: Sequence[ExtentFile],
        plain: Mapping[str, Located],
        packed: Mapping[str, PackedMatrix],
    ) -> None:
        self.file = folder.resolve().name
        self.config = config
        self._folder = folder
        self._files = files
        self._plain = plain
        self._packed = packed
        self._names = {
            name: TensorInfo(tensor.shape, FLOATS.get(tensor.stored.dtype, tensor.stored.dtype))
            for name, tensor in plain.items()
        } | {name: matrix.info for name, matrix in packed.items()}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the configuration and every shard's header. Raises as `open_checkpoint` says."""
        if not (folder / "config.json").is_file():
            raise CheckpointNotFound(_without_config(folder))
        config = read_json_object(folder / "config.json", MAX_CONFIG_BYTES)
        packing = packing_of(config)
        files, tensors = _locate(folder)
        if packing is None:
            return cls(folder, config, files, tensors, {})
        try:
            packed, plain = find_packed(packing, tensors)
        except BaseException:
            _close(files)
            raise
        return cls(folder, config, files, plain, packed)

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
        matrix = self._packed.get(name)
        return read_rows(self._find(name), name, start, stop) if matrix is None else matrix.rows(start, stop)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """All values as float32."""
        matrix = self._packed.get(name)
        return read_tensor(self._find(name), name) if matrix is None else matrix.rows(0, matrix.info.shape[0])

    def blocks(self, name: str) -> Blocks | None:
        """The codes of a packed matrix; None for plain floats, and where a group's columns do not lie together."""
        matrix = self._packed.get(name)
        if matrix is None:
            self._find(name)
            return None
        return matrix.blocks()

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

    def _find(self, name: str) -> Located:
        if name not in self._plain:
            raise MissingTensor(name)
        return self._plain[name]


def _without_config(folder: Path) -> str:
    """What to say about a folder without config.json: an adapter's, or one with a GGUF file in it."""
    if (folder / ADAPTER_CONFIG).is_file():
        return f"{folder}: the folder holds an adapter; give the model that it was made for, and --adapter {folder}"
    found = sorted(path.name for path in folder.glob("*.gguf"))
    hint = f"; to export {found[0]}, give the file itself" if found else ""
    return f"{folder}: the folder has no config.json{hint}"


def _locate(folder: Path) -> tuple[list[ExtentFile], dict[str, Located]]:
    """All shards, open, and every tensor's file and place. Nothing stays open if it fails."""
    weight_map = _weight_map(folder)
    shards = sorted(set(weight_map.values())) or [_only_shard(folder)]
    files: list[ExtentFile] = []
    found: dict[str, Located] = {}
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
                    raise CorruptCheckpoint(f"the tensor {name!r} is also in {found[name].file.name}", shard)
                found[name] = Located(file, stored)
        for name, shard in weight_map.items():
            if name not in found:
                raise CorruptCheckpoint(f"it lacks the tensor {name!r}, which the index promises", shard)
    except BaseException:
        _close(files)
        raise
    return files, found


def _only_shard(folder: Path) -> str:
    """`model.safetensors`, or the only file of that kind whatever its name (AutoGPTQ chose its own).

    Raises UnsupportedCheckpoint or CheckpointNotFound without one.
    """
    found = sorted(path.name for path in folder.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)
    if "model.safetensors" in found or len(found) == 1:
        return "model.safetensors" if "model.safetensors" in found else found[0]
    if found:
        raise CheckpointNotFound(f"{folder}: the folder has several safetensors files, but no index of them")
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES and path.name not in _NO_WEIGHTS)
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


def _close(files: Iterable[ExtentFile]) -> None:
    for file in files:
        file.close()

"""The adapter format: a LoRA that stands beside a bundle, what `adapter.json` says, and how strictly it is read.

An adapter is a folder with two files. `adapter.json` (UTF-8 JSON, at most 1 MiB) is its entry point:

    format         1; a reader refuses a larger number than it knows
    name, version  what the owner calls it; requests ask for it as `base:name`
    base           the bundle it was made beside: its name and version, for people, and its fingerprint, which counts
    ranks          rank of each linear that it changes, by the graph's name ("layers.0.qkv")
    files          every other file with its size and SHA-256
    source         name of the folder that it was made from
    licence        what that folder declares
    quality        what verification measured (numbers by name)
    golden         prompts with the greedy tokens that follow with this base and adapter

`adapter.onnx_adapter` is onnxruntime's adapter format, which any program that uses onnxruntime can load beside the
bundle's `model-adapters.onnx`: float32 A [inputs, rank] and B [rank, outputs] of each linear, alpha folded into B.

A linear reads one input: Q, K and V are one, gate and up are one, whatever the layouts their weights are stored in.
So an adapter fits the same model in any quantisation. That it is the same model is told by the *fingerprint*: sizes,
and the gains of all norms, which no quantisation changes and which differ between any two trainings of whole models. A
hash of bundle.json would refuse an adapter after each new rounding of its base; names or sizes alone would let it run
on another model, whose answers it would spoil without a word.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.bundle import Bundle
from edgekit.errors import CorruptBundle, NotABundle, UnsafePath, UnsupportedFormat, WrongBase
from edgekit.files import safe_join, sha256_of
from edgekit.manifest import Bytes, FileEntry, Golden, Name, Sha256, is_safe_path
from edgekit.onnxfile import MAX_GRAPH_BYTES, ExternalTensor, external_tensors

FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_RANK = 4096
MAX_WEIGHTS_BYTES = 2 << 30
_VALUE_BYTES = 4
_OVERHEAD_BYTES, _OVERHEAD_PER_LINEAR_BYTES = 4096, 1024
"""What onnxruntime's format may add to the values: names, shapes, tables."""

_FACTS = ("model_type", "layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "gated", "rotated")
_FLOAT = 1  # TensorProto.DataType


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bundle beside which an adapter was made."""

    name: Name
    version: Name
    fingerprint: Sha256


class AdapterManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`adapter.json` as a record; see the module's text for each field."""

    format: int
    name: Name
    version: Name
    base: Base
    ranks: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=100)], Annotated[int, msgspec.Meta(ge=1, le=MAX_RANK)]],
        msgspec.Meta(min_length=1),
    ]
    files: Annotated[tuple[FileEntry, ...], msgspec.Meta(min_length=1, max_length=100)]
    source: str
    quality: dict[str, float]
    golden: tuple[Golden, ...] = ()
    licence: str | None = None

    @property
    def file_bytes(self) -> Bytes:
        """Size of all listed files."""
        return sum(entry.size for entry in self.files)

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"


class _FormatOnly(msgspec.Struct):
    format: int


def parse(raw: bytes, *, path: str) -> AdapterManifest:
    """Read `adapter.json`; `path` only names the adapter in errors.

    Raises CorruptBundle, UnsupportedFormat, or UnsafePath (a file outside the folder).
    """
    try:
        found = msgspec.json.decode(raw, type=_FormatOnly).format
        if found > FORMAT:
            raise UnsupportedFormat(path, f"it has format {found}, and this version reads up to {FORMAT}")
        manifest = msgspec.json.decode(raw, type=AdapterManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptBundle(path, f"{contract.ADAPTER_MANIFEST_FILE}: {error}"[:1000]) from error
    if found < 1:
        raise CorruptBundle(path, f"{contract.ADAPTER_MANIFEST_FILE}: format {found} does not exist")
    names = [entry.path for entry in manifest.files]
    for name in names:
        if not is_safe_path(name):
            raise UnsafePath(path, repr(name))
    if len(set(names)) != len(names) or contract.ADAPTER_WEIGHTS_FILE not in names:
        raise CorruptBundle(path, f"it lists a file twice, or no {contract.ADAPTER_WEIGHTS_FILE}")
    return manifest


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter whose manifest was read and whose files have the sizes that it says."""

    folder: Path
    manifest: AdapterManifest

    @property
    def weights(self) -> Path:
        """The file that onnxruntime reads."""
        return safe_join(self.folder, contract.ADAPTER_WEIGHTS_FILE)


def open_adapter(folder: Path) -> AdapterFolder:
    """Read and check `folder`, but for hashes. Raises NotABundle, UnsupportedFormat, CorruptBundle or UnsafePath."""
    path, name = folder / contract.ADAPTER_MANIFEST_FILE, str(folder)
    if not path.is_file():
        raise NotABundle(name, f"there is no {contract.ADAPTER_MANIFEST_FILE}")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise CorruptBundle(name, f"{path.name} is larger than {MAX_MANIFEST_BYTES:,} bytes")
    manifest = parse(path.read_bytes(), path=name)
    for entry in manifest.files:
        file = safe_join(folder, entry.path)
        if not file.is_file() or file.stat().st_size != entry.size:
            raise CorruptBundle(name, f"{entry.path} is missing, or does not have {entry.size:,} bytes")
    return AdapterFolder(folder, manifest)


def check(adapter: AdapterFolder, base: Bundle) -> None:
    """Hold an adapter against the bundle it is to stand beside, before any of its weights are read; then its hashes.

    Raises WrongBase or CorruptBundle.
    """
    name, manifest = str(adapter.folder), adapter.manifest
    refuse_baseless(base)
    known = linears(base.manifest.arch)
    if stranger := next((linear for linear in manifest.ranks if linear not in known), None):
        raise WrongBase(name, f"it changes {stranger!r}, which {base.manifest.name} does not have")
    if manifest.base.fingerprint != fingerprint(base):
        raise WrongBase(
            name,
            f"it was made for {manifest.base.name} {manifest.base.version}, and {base.manifest.name}"
            f" {base.manifest.version} has other weights",
        )
    least = sum(rank * sum(known[linear]) for linear, rank in manifest.ranks.items()) * _VALUE_BYTES
    most = min(least + _OVERHEAD_BYTES + _OVERHEAD_PER_LINEAR_BYTES * len(manifest.ranks), MAX_WEIGHTS_BYTES)
    size = adapter.weights.stat().st_size
    if not least <= size <= most:
        raise CorruptBundle(name, f"{adapter.weights.name} has {size:,} bytes, not {least:,} to {most:,}")
    for entry in manifest.files:
        if sha256_of(safe_join(adapter.folder, entry.path)) != entry.sha256:
            raise CorruptBundle(name, f"{entry.path} has changed: its SHA-256 is not the one that was recorded")


def refuse_baseless(base: Bundle) -> None:
    """Raises WrongBase for a bundle that takes no adapters."""
    if not base.has(contract.ADAPTERS_FILE):
        raise WrongBase(
            str(base.folder),
            f"this bundle takes no adapters, because it has no {contract.ADAPTERS_FILE}; export writes one for models"
            " that generate, but not for rotated ones and those of another exporter",
        )


Sizes = tuple[int, int]
"""Inputs and outputs."""


def linears(arch: ModelArch) -> Mapping[str, Sizes]:
    """Every linear that an adapter can change, in the order of computation, by the graph's name."""
    found: dict[str, Sizes] = {}
    for i in range(arch.layers):
        for name in ("qkv", "o", "gate_up" if arch.gated else "up", "down"):
            parts = linear_parts(arch, f"layers.{i}.{name}").values()
            found[f"layers.{i}.{name}"] = next(iter(parts))[0], sum(outputs for _, outputs in parts)
    return found


def linear_parts(arch: ModelArch, linear: str) -> Mapping[str, Sizes]:
    """The model's matrices that a linear is made of, in the order of its outputs; they have the same inputs."""
    query, key = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    at, _, kind = linear.rpartition(".")
    parts: dict[str, Sizes] = {
        "qkv": {"q": (arch.hidden, query), "k": (arch.hidden, key), "v": (arch.hidden, key)},
        "o": {"o": (query, arch.hidden)},
        "gate_up": {"gate": (arch.hidden, arch.intermediate), "up": (arch.hidden, arch.intermediate)},
        "up": {"up": (arch.hidden, arch.intermediate)},
        "down": {"down": (arch.intermediate, arch.hidden)},
    }[kind]
    return {f"{at}.{part}": sizes for part, sizes in parts.items()}


def fingerprint(bundle: Bundle) -> str:
    """64 hexadecimal digits that are the same for every quantisation of a model. Raises CorruptBundle."""
    arch, name = bundle.manifest.arch, str(bundle.folder)
    try:
        tensors = external_tensors(bundle.read(contract.MODEL_FILE, limit_bytes=MAX_GRAPH_BYTES))
    except ValueError as error:
        raise CorruptBundle(name, f"{contract.MODEL_FILE} is not an ONNX file: {error}") from error
    gains = sorted((tensor for tensor in tensors if _is_gain(tensor, arch)), key=lambda tensor: tensor.name)
    digest = hashlib.sha256(msgspec.json.encode({fact: getattr(arch, fact) for fact in _FACTS}))
    with bundle.path(contract.DATA_FILE).open("rb") as stream:
        for gain in gains[: 4 * arch.layers + 1]:
            stream.seek(gain.offset)
            digest.update(gain.name.encode() + stream.read(arch.hidden * _VALUE_BYTES))
    return digest.hexdigest()


def _is_gain(tensor: ExternalTensor, arch: ModelArch) -> bool:
    return tensor.name.endswith("norm.weight") and tensor.kind == _FLOAT and tensor.shape == (arch.hidden,)

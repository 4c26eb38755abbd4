"""Everything beside the graph that makes a folder a bundle: tokenizer, genai configuration, card, manifest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.files import sha256_of
from edgekit.manifest import (
    FIRST_FORMAT,
    FORMAT,
    Embedding,
    FileEntry,
    Golden,
    Manifest,
    Recipe,
    Requirements,
    Source,
    SpecialTokens,
    parse,
)
from edgekit.quant import Precision
from export import genai
from export.card import model_card
from export.checkpoints import Checkpoint, TextFiles
from export.quantize.plan import Plan

MIN_ONNXRUNTIME = "1.31"
"""The oldest release on which every operator that we write was measured."""


@dataclass(frozen=True)
class Named:
    """What the owner calls the model."""

    name: str
    version: str
    precision: Precision


@dataclass(frozen=True)
class Use:
    """How devices run the graph, in the manifest's words: its cache, or what an encoder's vectors are."""

    kv: Literal["shared", "concat"] = "shared"
    cache: contract.CacheType = "float32"
    embedding: Embedding | None = None


GENERATES = Use()
"""A fused graph of ours."""


class Measured(Protocol):
    """What verification found: `export.verify.Report`, for instance."""

    @property
    def golden(self) -> tuple[Golden, ...]:
        """Greedy continuations, of a model that generates."""

    def quality(self) -> dict[str, float]:
        """As the manifest records it."""


def write_text_files(folder: Path, text: TextFiles) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja as the checkpoint has them."""
    (folder / contract.TOKENIZER_FILE).write_bytes(text.tokenizer_json)
    (folder / contract.TOKENIZER_CONFIG_FILE).write_bytes(_json(text.tokenizer_config))
    if text.chat_template is not None:
        (folder / contract.CHAT_TEMPLATE_FILE).write_bytes(text.chat_template.encode())


def write_genai_config(folder: Path, arch: ModelArch, tokens: SpecialTokens) -> None:
    """genai_config.json, by which onnxruntime-genai (C#, Java, C++, mobile) opens the same files."""
    (folder / contract.GENAI_FILE).write_bytes(_json(genai.configuration(arch, tokens)))


def finish(
    folder: Path,
    named: Named,
    checkpoint: Checkpoint,
    arch: ModelArch,
    plan: Plan,
    tokens: SpecialTokens,
    report: Measured,
    use: Use = GENERATES,
) -> Manifest:
    """Write the card and the manifest over all files of `folder`; the manifest is returned."""
    weights = {name: matrix.spec.name for name, matrix in plan.items()}
    methods = sorted({matrix.method for matrix in plan.values()})
    source = Source(kind=checkpoint.kind, file=checkpoint.file, licence=checkpoint.licence)
    recipe = Recipe(precision=named.precision, method="+".join(methods), weights=weights)
    data_bytes = (folder / contract.DATA_FILE).stat().st_size

    def manifest(files: tuple[FileEntry, ...]) -> Manifest:
        return Manifest(
            format=FORMAT if (folder / contract.PREFILL_FILE).exists() else FIRST_FORMAT,  # as old a reader as can be
            name=named.name,
            version=named.version,
            arch=arch,
            quant=recipe,
            files=files,
            requires=Requirements(
                onnxruntime=MIN_ONNXRUNTIME,
                disk_bytes=sum(entry.size for entry in files),
                weight_bytes=data_bytes,
                kv_bytes_per_token=0 if use.embedding else _kv_bytes_per_token(arch, use.cache),
            ),
            tokens=tokens,
            source=source,
            quality=report.quality(),
            golden=report.golden,
            kv=use.kv,
            cache=use.cache,
            task="embed" if use.embedding else "generate",
            embedding=use.embedding,
        )

    (folder / contract.CARD_FILE).write_bytes(model_card(manifest(()), plan.values()).encode())
    raw = manifest(_entries(folder)).to_bytes()
    (folder / contract.MANIFEST_FILE).write_bytes(raw)
    return parse(raw, path=str(folder))  # what devices will read: a manifest that they would refuse fails here


def _kv_bytes_per_token(arch: ModelArch, cache: contract.CacheType) -> int:
    return arch.kv_values_per_token * contract.CACHE_VALUE_BYTES[cache]


def _entries(folder: Path) -> tuple[FileEntry, ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path)) for path in files)


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"

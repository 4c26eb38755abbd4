"""What the routes of models say of one: from a card to JSON's shapes. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from device_agent.engine.records import EngineState
from device_agent.http.services import Card, Rates

CATALOGUE_TOKENS = 2048
"""The conversation that `memory_bytes` is told for."""

Kind = Literal["generate", "embed"]


class ModelMeta(Struct, kw_only=True):
    """Ours, with llama.cpp's names where it has them; `size` is in bytes. `base` is an adapter's."""

    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    n_params: int
    size: int
    quantisation: str
    version: str
    sha256: str
    kind: Kind
    loaded: bool
    active: bool
    quality: Mapping[str, float]
    licence: str | None
    base: str | UnsetType = UNSET


class ModelEntry(Struct, kw_only=True):
    """OpenAI's model object (API reference, "The model object"), and what we know besides."""

    id: str
    created: int
    meta: ModelMeta
    object: Literal["model"] = "model"
    owned_by: Literal["edgekit"] = "edgekit"


class ModelList(Struct, kw_only=True):
    """All of them."""

    data: list[ModelEntry]
    object: Literal["list"] = "list"


class Architecture(Struct, kw_only=True):
    """The numbers that people compare models by."""

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    vocab: int
    parameters: int


class FileSize(Struct, kw_only=True):
    """A file of the bundle, in bytes."""

    path: str
    size: int


class CatalogueEntry(Struct, kw_only=True):
    """A model of the store, for people. `memory_bytes` is with a conversation of CATALOGUE_TOKENS."""

    id: str
    kind: Kind
    active: bool
    loaded: bool
    version: str
    created: int
    sha256: str
    architecture: Architecture
    quantisation: str
    licence: str | None
    source: str
    bytes: int
    memory_bytes: int
    context: int
    quality: Mapping[str, float]
    adapters: Sequence[str]
    files: list[FileSize]
    card: str
    measured: Rates
    engine: EngineState | None


class Catalogue(Struct, kw_only=True):
    """All of them."""

    data: list[CatalogueEntry]


def model_list(cards: Sequence[Card]) -> ModelList:
    """Models and their adapters, each an entry of its own, since requests name them so."""
    return ModelList(data=[entry for card in cards for entry in model_entries(card)])


def model_entries(card: Card) -> Iterator[ModelEntry]:
    """The model, then its adapters."""
    yield _entry(card, card.id)
    for adapter in card.adapters:
        yield _entry(card, f"{card.id}:{adapter}")


def catalogue_entry(card: Card, measured: Rates) -> CatalogueEntry:
    """All that is known."""
    manifest = card.manifest
    arch = manifest.arch
    return CatalogueEntry(
        id=card.id,
        kind=manifest.task,
        active=card.active,
        loaded=card.loaded,
        version=manifest.version,
        created=card.created,
        sha256=card.sha256,
        architecture=Architecture(
            model_type=arch.model_type,
            layers=arch.layers,
            hidden=arch.hidden,
            heads=arch.heads,
            kv_heads=arch.kv_heads,
            vocab=arch.vocab,
            parameters=arch.parameters,
        ),
        quantisation=manifest.quant.precision,
        licence=manifest.source.licence,
        source=f"{manifest.source.kind} {manifest.source.file}",
        bytes=manifest.file_bytes,
        memory_bytes=manifest.memory_bytes(tokens=CATALOGUE_TOKENS),
        context=manifest.context_tokens,
        quality=manifest.quality,
        adapters=card.adapters,
        files=[FileSize(path=entry.path, size=entry.size) for entry in manifest.files],
        card=card.text,
        measured=measured,
        engine=card.state,
    )


def _entry(card: Card, name: str) -> ModelEntry:
    manifest = card.manifest
    meta = ModelMeta(
        n_ctx=manifest.context_tokens,
        n_ctx_train=manifest.arch.context,
        n_vocab=manifest.arch.vocab,
        n_params=manifest.arch.parameters,
        size=manifest.file_bytes,
        quantisation=manifest.quant.precision,
        version=manifest.version,
        sha256=card.sha256,
        kind=manifest.task,
        loaded=card.loaded,
        active=card.active,
        quality=manifest.quality,
        licence=manifest.source.licence,
        base=UNSET if name == card.id else card.id,
    )
    return ModelEntry(id=name, created=card.created, meta=meta)

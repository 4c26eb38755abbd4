"""The bundle format: what `bundle.json` says, and how strictly it is read.

A bundle is a folder. `bundle.json` (UTF-8 JSON, at most 16 MiB) is its only entry point:

    format        1, or 2 if the bundle has a graph whose weights each device derives (contract.PREFILL_FILE); a reader
                  refuses a larger number than it knows, because it could not know what it means
    name, version what the owner calls this model
    arch          ModelArch: the facts by which the engine sizes its buffers
    quant         the recipe: the precision asked for, and the spec of every weight matrix by name
    files         every other file of the folder with its size and SHA-256; nothing unlisted is opened
    requires      the onnxruntime that knows the operators; disk and memory needed
    tokens        ids of beginning, padding and every token that ends an answer
    source        where the weights came from, and under which licence
    quality       what verification measured (numbers by name)
    golden        prompts with the greedy tokens that follow: the bundle's own acceptance test
    kv            "concat" if the graph appends to its cache by copying it (edgekit.contract); else it is not there
    cache         "int8" if keys and values are cached as INT8; else it is not there, and they are float32
    task          "embed" if the model turns texts into vectors; else it is not there, and the model generates
    embedding     of such a model: how vectors come about, and golden texts with the vectors that they have

Paths in `files` are relative, use `/`, and never leave the folder. Fields that are not listed here
are an error: a bundle is read the same way by every version that can read it.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from edgekit.arch import MAX_DIMENSION, ModelArch
from edgekit.contract import CacheType
from edgekit.errors import CorruptBundle, UnsafePath, UnsupportedFormat
from edgekit.quant import Precision

FORMAT = 2
FIRST_FORMAT = 1
MAX_MANIFEST_BYTES = 16 << 20
MAX_FILES = 10_000

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\Z")]
TokenId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
Bytes = Annotated[int, msgspec.Meta(ge=0, lt=1 << 60)]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the bundle."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    size: Bytes
    sha256: Sha256


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the weights were quantised; `weights` maps each matrix to the name of its QuantSpec."""

    precision: Precision
    method: str
    weights: dict[str, str]


class Requirements(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device needs. `kv_bytes_per_token` is what the cache grows by; weights are mapped or copied once."""

    onnxruntime: str
    disk_bytes: Bytes
    weight_bytes: Bytes
    kv_bytes_per_token: Bytes


class SpecialTokens(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`eos` ends an answer; `bos` is set only if a prompt must begin with it."""

    eos: tuple[TokenId, ...]
    bos: TokenId | None = None
    pad: TokenId | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The checkpoint: its kind and file name (never a path), and the licence it declares."""

    kind: Literal["gguf", "huggingface"]
    file: str
    licence: str | None = None


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prompt ids and the greedy continuation.

    `sure` is how many tokens at the start stay clear of a tie, so that another CPU's rounding cannot change them.
    """

    prompt: tuple[TokenId, ...]
    tokens: tuple[TokenId, ...]
    sure: Annotated[int, msgspec.Meta(ge=0)]


class GoldenText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text, its token ids, and its vector rounded to four decimals."""

    text: Annotated[str, msgspec.Meta(max_length=10_000)]
    tokens: tuple[TokenId, ...]
    vector: tuple[float, ...]


class Embedding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an encoder's states become a text's vector.

    `pooling` takes the mean over a text's tokens, the first one ("cls") or the last; `normalise` scales the result to
    length 1. Texts may have `max_tokens`, the tokens that the tokenizer adds included. `dimension` is the vector's.
    """

    pooling: Literal["mean", "cls", "last"]
    normalise: bool
    max_tokens: Annotated[int, msgspec.Meta(ge=1, lt=MAX_DIMENSION)]
    dimension: Annotated[int, msgspec.Meta(ge=1, lt=MAX_DIMENSION)]
    golden: tuple[GoldenText, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`bundle.json` as a record; see the module's text for each field.

    What is as in every early bundle is not written (omit_defaults), so that early readers still read such bundles.
    """

    format: int
    name: Name
    version: Name
    arch: ModelArch
    quant: Recipe
    files: Annotated[tuple[FileEntry, ...], msgspec.Meta(max_length=MAX_FILES)]
    requires: Requirements
    tokens: SpecialTokens
    source: Source
    quality: dict[str, float]
    golden: tuple[Golden, ...]
    kv: Literal["shared", "concat"] = "shared"
    cache: CacheType = "float32"
    task: Literal["generate", "embed"] = "generate"
    embedding: Embedding | None = None

    @property
    def file_bytes(self) -> int:
        """Size of all listed files."""
        return sum(entry.size for entry in self.files)

    @property
    def context_tokens(self) -> int:
        """The longest text, an answer included, that the model can take."""
        return self.arch.context if self.embedding is None else self.embedding.max_tokens

    def memory_bytes(self, *, tokens: int) -> int:
        """Memory for the weights, and for keys and values of so many tokens."""
        return self.requires.weight_bytes + tokens * self.requires.kv_bytes_per_token

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts: sorted files, two-space indent, final newline."""
        ordered = msgspec.structs.replace(self, files=tuple(sorted(self.files, key=lambda entry: entry.path)))
        return msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n"


class _FormatOnly(msgspec.Struct):
    format: int


_UNSAFE = re.compile(r"^/|\\|:|\x00|(^|/)\.{0,2}(/|\Z)")


def is_safe_path(path: str) -> bool:
    """True for a relative path with no empty, `.` or `..` part, drive, backslash or NUL."""
    return not _UNSAFE.search(path)


def parse(raw: bytes, *, path: str) -> Manifest:
    """Read `bundle.json`; `path` only names the bundle in errors.

    Raises CorruptBundle (not valid JSON, wrong or unknown field), UnsupportedFormat (made by a newer
    exporter) or UnsafePath (a file outside the folder).
    """
    try:
        found = msgspec.json.decode(raw, type=_FormatOnly).format
        if found > FORMAT:
            raise UnsupportedFormat(path, f"it has format {found}, and this version reads up to {FORMAT}")
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptBundle(path, f"bundle.json: {error}") from error
    if found < 1:
        raise CorruptBundle(path, f"bundle.json: format {found} does not exist")
    for entry in manifest.files:
        if not is_safe_path(entry.path):
            raise UnsafePath(path, repr(entry.path))
    if len({entry.path for entry in manifest.files}) != len(manifest.files):
        raise CorruptBundle(path, "bundle.json lists a file twice")
    for problem in _contradictions(manifest):
        raise CorruptBundle(path, f"bundle.json {problem}")
    return manifest


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Facts that cannot be true together."""
    embedding, arch = manifest.embedding, manifest.arch
    if (manifest.task == "embed") != (embedding is not None):
        yield f"says task {manifest.task!r} and has {'no' if embedding is None else 'an'} embedding"
    if manifest.cache != "float32" and (manifest.kv != "shared" or embedding is not None):
        yield f"says cache {manifest.cache!r} of a graph that has none of that kind"
    if embedding is None and not manifest.tokens.eos:
        yield "names no end-of-text token"
    if max(_token_ids(manifest), default=0) >= arch.vocab:
        yield "names a token beyond the vocabulary"
    if embedding is not None and embedding.dimension != arch.hidden:
        yield f"says that vectors have {embedding.dimension} values, and the model's width is {arch.hidden}"
    if embedding is not None and any(len(golden.vector) != embedding.dimension for golden in embedding.golden):
        yield "has a golden vector of another length"


def _token_ids(manifest: Manifest) -> Iterator[int]:
    yield from manifest.tokens.eos
    yield from (token for token in (manifest.tokens.bos, manifest.tokens.pad) if token is not None)
    for golden in manifest.golden:
        yield from golden.prompt
        yield from golden.tokens
    for text in () if manifest.embedding is None else manifest.embedding.golden:
        yield from text.tokens

"""The bundle format: what `bundle.json` says, and how strictly it is read.

A bundle is a folder. `bundle.json` (UTF-8 JSON, at most 16 MiB) is its only entry point:

    format        1; a reader refuses a larger number, because it could not know what it means
    name, version what the owner calls this model
    arch          ModelArch: the facts by which the engine sizes its buffers
    quant         the recipe: the precision asked for, and the spec of every weight matrix by name
    files         every other file of the folder with its size and SHA-256; nothing unlisted is opened
    requires      the onnxruntime that knows the operators; disk and memory needed
    tokens        ids of beginning, padding and every token that ends an answer
    source        where the weights came from, and under which licence
    quality       what verification measured (numbers by name)
    golden        prompts with the greedy tokens that follow: the bundle's own acceptance test

Paths in `files` are relative, use `/`, and never leave the folder. Fields that are not listed here
are an error: a bundle is read the same way by every version that can read it.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from edgekit.arch import ModelArch
from edgekit.errors import CorruptBundle, UnsafePath, UnsupportedFormat
from edgekit.quant import Precision

FORMAT = 1
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


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`bundle.json` as a record; see the module's text for each field."""

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

    @property
    def file_bytes(self) -> int:
        """Size of all listed files."""
        return sum(entry.size for entry in self.files)

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts: sorted files, two-space indent, final newline."""
        ordered = msgspec.structs.replace(self, files=tuple(sorted(self.files, key=lambda entry: entry.path)))
        return msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n"


class _FormatOnly(msgspec.Struct):
    format: int


_UNSAFE = re.compile(r"^/|\\|:|\x00|(^|/)\.{0,2}(/|$)")


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
    if not manifest.tokens.eos:
        raise CorruptBundle(path, "bundle.json names no end-of-text token")
    if max(_token_ids(manifest)) >= manifest.arch.vocab:
        raise CorruptBundle(path, "bundle.json names a token beyond the vocabulary")
    return manifest


def _token_ids(manifest: Manifest) -> Iterator[int]:
    yield from manifest.tokens.eos
    yield from (token for token in (manifest.tokens.bos, manifest.tokens.pad) if token is not None)
    for golden in manifest.golden:
        yield from golden.prompt
        yield from golden.tokens

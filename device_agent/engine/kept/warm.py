"""The system prompt's keys and values on disk, so that a restarted agent need not read it again.

One file for each key, `{key}.kv`; numbers are little-endian:

    8 bytes    "EKWARM1" and a newline
    4 bytes    unsigned length of the header
    header     JSON, blanks at its end so that what follows begins at a multiple of 64 bytes:
               key, tokens, and type ("float32" or "int8") and shape [arrays, kv_heads, head_dim] of the cache
    ids        int32, one for each token
    arrays     keys and values of each layer in turn, [kv_heads, tokens, head_dim]
    32 bytes   SHA-256 of everything before

The key says what the numbers depend on (see `key_of`), so an update of the model finds no file and makes its own; the
old one is still there for a rollback, until the folder is full. A file that is damaged, or not what this model has,
is removed: it is only a copy of what can be computed again. Whoever can read a file can learn the prompt from it, so
nobody else can.
"""

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from device_agent.engine.rows import Snapshot
from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.bundle import Bundle
from edgekit.chat import Message
from edgekit.contract import CacheType
from edgekit.errors import EdgekitError
from edgekit.files import sha256_of, write_durably

log = logging.getLogger(__name__)

FOLDER_BYTES = 1 << 30
"""All files together. A thousand tokens of SmolLM2-135M take 46 MB."""

_MAGIC = b"EKWARM1\n"
_MAX_HEADER_BYTES = 4096
_LENGTH_BYTES, _ID_BYTES = 4, 4
_ALIGNMENT = 64
_DIGEST_BYTES = 32
_TYPES: dict[CacheType, str] = {"float32": "<f4", "int8": "|i1"}
_OURS = re.compile(r"\.?[0-9a-f]{64}\.kv(\..+)?")
"""Files, and what a power cut left of writing one."""

Warm = tuple[tuple[int, ...], Snapshot]
"""Token ids, and the keys and values of just these."""
_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str
    tokens: _Size
    type: CacheType
    shape: tuple[_Size, _Size, _Size]


class _Refused(Exception):
    """Why a file is not read or not written."""


def key_of(bundle: Bundle, *, runtime: str) -> str:
    """64 hexadecimal digits that change with anything that the numbers depend on.

    That is bundle.json, which holds the hashes of the graph, the weights, the tokenizer and the template, and
    `runtime`: the version of onnxruntime, and what else the caller computes by.
    """
    manifest = sha256_of(bundle.folder / contract.MANIFEST_FILE)
    return hashlib.sha256(b"%s%s %s" % (_MAGIC, manifest.encode(), runtime.encode())).hexdigest()


@dataclass(frozen=True)
class WarmFolder:
    """Saved prompts of models with this architecture and type of cache.

    All files together stay within `limit_bytes`: those that were not used for longest go first. Nothing here raises for
    what is on the disk; a prompt that cannot be saved or loaded is one line in the log, and is read again.
    """

    folder: Path
    arch: ModelArch
    cache: CacheType
    limit_bytes: int = FOLDER_BYTES

    def load(self, key: str) -> Warm | None:
        """What was saved for `key`; None if nothing was, or nothing that can be used."""
        path = self._path(key)
        try:
            with _opened(path) as stream:
                found = self._read(stream, key)
            os.utime(path)  # the newest one now
        except FileNotFoundError:
            return None
        except (_Refused, OSError) as error:
            log.warning("The saved prompt %s is not used: %s", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return found

    def save(self, key: str, ids: Sequence[int], snapshot: Snapshot) -> bool:
        """Keep the keys and values of `ids` under `key`, instead of what was there; whether it worked."""
        path = self._path(key)
        try:
            self._check(ids, snapshot)
            header = self._header(key, len(ids))
            pieces = [memoryview(header), np.asarray(ids, "<i4").data.cast("B")]
            pieces += [np.ascontiguousarray(array).data.cast("B") for array in snapshot.arrays]
            size = sum(piece.nbytes for piece in pieces) + _DIGEST_BYTES
            if size > self.limit_bytes:
                raise _Refused(f"it takes {size:,} bytes, and {self.limit_bytes:,} are allowed for all")
            digest = hashlib.sha256()
            for piece in pieces:
                digest.update(piece)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(size, path)
            write_durably(path, [*pieces, digest.digest()], mode=0o600)
        except (_Refused, OSError) as error:
            log.warning("The prompt is not saved in %s: %s", self.folder, error)
            return False
        return True

    def _path(self, key: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", key):
            raise ValueError(f"{key!r} is not a key")
        return self.folder / f"{key}.kv"

    @property
    def _shape(self) -> tuple[int, int, int]:
        return 2 * self.arch.layers, self.arch.kv_heads, self.arch.head_dim

    def _header(self, key: str, tokens: int) -> bytes:
        facts = msgspec.json.encode(_Header(key=key, tokens=tokens, type=self.cache, shape=self._shape))
        start = len(_MAGIC) + _LENGTH_BYTES
        blanks = -(start + len(facts)) % _ALIGNMENT
        return _MAGIC + (len(facts) + blanks).to_bytes(_LENGTH_BYTES, "little") + facts + b" " * blanks

    def _check(self, ids: Sequence[int], snapshot: Snapshot) -> None:
        """Raises _Refused for what a file cannot hold: `load` would not believe it."""
        arrays, heads, dim = self._shape
        wanted = (np.dtype(_TYPES[self.cache]), (heads, len(ids), dim))
        same = all((array.dtype, array.shape) == wanted for array in snapshot.arrays)
        if not same or snapshot.length != len(ids) or len(snapshot.arrays) != arrays:
            raise _Refused("these are not the keys and values of these tokens")
        if not 1 <= len(ids) <= self.arch.context or min(ids) < 0 or max(ids) >= self.arch.vocab:
            raise _Refused("these are no tokens of this model")

    def _read(self, stream: BufferedReader, key: str) -> Warm:
        """Raises _Refused. Memory is taken only for what the model can have and the file is long enough for."""
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(len(_MAGIC) + _LENGTH_BYTES)
        length = int.from_bytes(start[len(_MAGIC) :], "little")
        if not start.startswith(_MAGIC) or length > _MAX_HEADER_BYTES:
            raise _Refused("it is not such a file")
        raw = stream.read(length)
        tokens = self._tokens(raw, key)
        arrays, heads, dim = self._shape
        one = heads * tokens * dim * np.dtype(_TYPES[self.cache]).itemsize
        length = _ID_BYTES * tokens + arrays * one
        if size != len(start) + len(raw) + length + _DIGEST_BYTES:
            raise _Refused("its size is not what it says")
        body = np.empty(length, np.uint8)
        stream.readinto(body.data)
        digest = hashlib.sha256(start + raw)
        digest.update(body.data)
        if digest.digest() != stream.read(_DIGEST_BYTES):
            raise _Refused("it is damaged")
        ids = body[: _ID_BYTES * tokens].view("<i4").tolist()
        values = body[_ID_BYTES * tokens :].view(_TYPES[self.cache]).reshape(arrays, heads, tokens, dim)
        snapshot = Snapshot(tokens, tuple(values))
        self._check(ids, snapshot)
        return tuple(ids), snapshot

    def _tokens(self, raw: bytes, key: str) -> int:
        """How many a header speaks of. Raises _Refused if it is none, or another model's."""
        try:
            header = msgspec.json.decode(raw, type=_Header)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _Refused(f"its header is not one: {error}") from error
        if (header.key, header.type, header.shape) != (key, self.cache, self._shape):
            raise _Refused("it belongs to another model")
        if header.tokens > self.arch.context:
            raise _Refused("it has more tokens than the model's context")
        return header.tokens

    def _make_room(self, needed_bytes: int, replaced: Path) -> None:
        """Remove what was not used for longest until there is room."""
        found = [(entry.stat(), entry) for entry in self.folder.iterdir() if _OURS.fullmatch(entry.name)]
        used = needed_bytes + sum(status.st_size for status, entry in found if entry != replaced)
        for status, entry in sorted(found, key=lambda each: each[0].st_mtime_ns):
            if used > self.limit_bytes and entry != replaced:
                entry.unlink(missing_ok=True)
                used -= status.st_size


def _opened(path: Path) -> BufferedReader:
    """For reading, and not through a link. Raises OSError."""
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)), "rb")


# --- which tokens -----------------------------------------------------------

_USERS = ("a", "B", "7", " ", "\n", "-")
"""Beginnings of what a user may say: they differ in their first token, and some join what stands before."""


def system_prefix(encode: Callable[[Sequence[Message]], Sequence[int]], system: str) -> tuple[int, ...]:
    """The tokens that every chat with this system prompt begins with, whatever the user says first.

    `encode` is PromptEncoder.chat. Found by trying several first messages, so nothing need be known about the
    template. Empty if there is no system prompt, if the template refuses one or writes something else each time.
    """
    if not system:
        return ()
    try:
        chats = [
            encode([Message(role="system", content=system), Message(role="user", content=user)]) for user in _USERS
        ]
    except EdgekitError as error:
        log.info("The system prompt cannot be read ahead: %s", error)
        return ()
    common: list[int] = []
    for tokens in zip(*chats, strict=False):
        if len(set(tokens)) > 1:
            break
        common.append(tokens[0])
    return tuple(common)

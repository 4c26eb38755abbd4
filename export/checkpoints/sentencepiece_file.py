"""Reads a SentencePiece model (`tokenizer.model`): a protobuf message, walked without a schema compiler.

Fields are those of google/sentencepiece's sentencepiece_model.proto, the wire format that of protobuf.dev
("Encoding"). Unknown fields are skipped; every length is held against the bytes that are there.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints import charsmap
from export.checkpoints.pieces import SPACE, Kind, Pieces

MAX_PIECES = 1 << 22
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNIGRAM, _BPE = 1, 2

Field = int | bytes


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What is needed to build the tokenizer. `unknown` is an id; the booleans default as the schema says."""

    pieces: Pieces
    unigram: bool
    unknown: int
    charsmap: bytes
    prefix_space: bool
    merge_spaces: bool


def parse_model(raw: bytes, file: str) -> SentencePieceModel:
    """Read a model. Raises CorruptCheckpoint, or UnsupportedCheckpoint for a kind other than BPE and unigram."""
    try:
        fields = list(_fields(raw))
        pieces = _pieces([value for number, value in fields if number == 1 and isinstance(value, bytes)])
        trainer, normalizer = (_last(fields, number) for number in (2, 3))
        replacements = normalizer.get(2, b"")
        if not isinstance(replacements, bytes):
            raise TypeError("its table of replacements is a number")
        if replacements:
            charsmap.check(replacements)
    except (TypeError, ValueError, struct.error) as error:
        raise CorruptCheckpoint(f"it is not a SentencePiece model: {error}", file) from error
    kind = trainer.get(3, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        raise UnsupportedCheckpoint(f"{file} is a SentencePiece model of the kind {kind!r}; unigram and BPE are read")
    if trainer.get(24) == 1 or normalizer.get(5) == 0:
        raise UnsupportedCheckpoint(f"{file} does not mark the beginnings of words, as SentencePiece models do")
    unknown = next((number for number, kind in enumerate(pieces.kinds) if kind == Kind.UNKNOWN), None)
    if unknown is None:
        raise CorruptCheckpoint("it has no token for what it does not know", file)
    return SentencePieceModel(
        pieces=pieces,
        unigram=kind == _UNIGRAM,
        unknown=unknown,
        charsmap=replacements,
        prefix_space=normalizer.get(3, 1) == 1,
        merge_spaces=normalizer.get(4, 1) == 1,
    )


def _pieces(messages: list[bytes]) -> Pieces:
    if not 0 < len(messages) <= MAX_PIECES:
        raise ValueError(f"it has {len(messages)} pieces")
    tokens, kinds, scores = [], [], []
    for message in messages:
        found = dict(_fields(message))
        text, score, kind = found.get(1, b""), found.get(2, bytes(4)), found.get(3, 1)
        if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4 or not isinstance(kind, int):
            raise ValueError("a piece has fields of another type")
        (number,) = struct.unpack("<f", score)
        if not math.isfinite(number):
            raise ValueError("the score of a piece is not a number")
        token = text.decode("utf-8")
        # Tokens that are looked up in the text are written as the text has them.
        tokens.append(token.replace(SPACE, " ") if kind == Kind.USER_DEFINED else token)
        kinds.append(kind)
        scores.append(number)
    if len(set(tokens)) != len(tokens):
        raise ValueError("two of its pieces are the same")
    return Pieces(tokens, kinds, scores)


def _last(fields: list[tuple[int, Field]], wanted: int) -> Mapping[int, Field]:
    """The fields of the sub-message `wanted`, those of a later copy over those of an earlier one."""
    found: dict[int, Field] = {}
    for number, value in fields:
        if number == wanted and isinstance(value, bytes):
            found |= dict(_fields(value))
    return found


def _fields(message: bytes) -> Iterator[tuple[int, Field]]:
    """(field number, value): an integer for a varint, the bytes for anything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == _BYTES:
            size, at = _varint(message, at)
        if not 0 <= size <= len(message) - at:
            raise ValueError("a field is longer than its message" if size >= 0 else f"unknown wire type {kind}")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("the file ends inside a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than ten bytes")

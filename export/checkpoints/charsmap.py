"""Checks SentencePiece's compiled table of replacements before the `tokenizers` library walks it.

The table (normalizer.cc of google/sentencepiece) is the size of an array, that array of 32-bit units, and texts that
each end in a zero byte. The array is a trie in darts-clone's layout: from the place p of a node, the byte c leads to
p ^ c, if the unit there bears that label; the unit's offset leads on, and a leaf holds where its text begins.
The library trusts all of this, and ends the program where a unit leads outside.
"""

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 16 << 20
_LABEL = np.uint32(1 << 31 | 0xFF)
_Places = NDArray[np.int64]


def check(charsmap: bytes) -> None:
    """Raise ValueError if a text could lead outside of the table."""
    size = int.from_bytes(charsmap[:4], "little")
    if not 4 <= len(charsmap) <= MAX_BYTES or size % 4 or not 0 < size <= len(charsmap) - 4:
        raise ValueError("its table of replacements has an impossible size")
    units, texts = np.frombuffer(charsmap[4 : 4 + size], "<u4"), charsmap[4 + size :]
    begins = _leaves(units)
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"its table of replacements is not text: {error}") from error
    if begins.size:
        found = np.frombuffer(texts + b"\0", np.uint8)
        inside = begins.max() < len(texts)
        if not inside or ((found[begins] & 0xC0) == 0x80).any():
            raise ValueError("its table of replacements points beside its texts")


def _leaves(units: NDArray[np.uint32]) -> _Places:
    """Values of all leaves that a text can lead to. Raises ValueError if it can also lead outside."""
    labels = (units & _LABEL).astype(np.int64)
    children = np.flatnonzero((labels > 0) & (labels < 256))
    parents = children ^ labels[children]  # the place from which the label leads there
    children, parents = children[parents < len(units)], parents[parents < len(units)]
    reached = np.zeros(len(units), np.bool_)
    reached[_inside(_offsets(units[:1]), len(units))] = True
    values: list[_Places] = []
    while True:
        new = reached[parents]
        if not new.any():
            return np.concatenate(values) if values else np.zeros(0, np.int64)
        there = children[new]
        children, parents = children[~new], parents[~new]
        places = _inside(there ^ _offsets(units[there]), len(units))
        reached[places] = True
        leaf = (units[there] >> 8) & 1 == 1
        values.append((units[places[leaf]] & 0x7FFFFFFF).astype(np.int64))


def _offsets(units: NDArray[np.uint32]) -> _Places:
    offsets: _Places = (units.astype(np.int64) >> 10) << ((units.astype(np.int64) & (1 << 9)) >> 6)
    return offsets


def _inside(places: _Places, size: int) -> _Places:
    """`places`, if each and all that one byte leads to are units."""
    if places.size and (places | 0xFF).max() >= size:
        raise ValueError("its table of replacements leads outside")
    return places

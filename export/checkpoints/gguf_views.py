"""Stored tensors under transformers' names, shapes and order of rows: what the converter did is undone here.

A view is a rule for reading, no values: rows are looked up where they lie when somebody asks for them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ShapeMismatch, UnexpectedTensor
from export.checkpoints.gguf_header import StoredTensor
from export.checkpoints.gguf_names import Change
from export.checkpoints.gguf_rules import Facts

Rows = NDArray[np.int64]

_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,6})\.(.+)")
_SUFFIX = re.compile(r"\.(?:weight|bias)\Z")


@dataclass(frozen=True, slots=True)
class View:
    """A tensor of transformers: `shape` is its shape there, the other fields say how to get it from `stored`.

    `source` is what the file calls the stored tensor; `first` is its first row there. `order` maps its rows to stored
    rows counted from there; None if they lie in order. A `transposed` one has the stored columns as rows. `excess` was
    added to every value.
    """

    source: str
    stored: StoredTensor
    shape: tuple[int, ...]
    first: int = 0
    order: Callable[[Rows], Rows] | None = None
    transposed: bool = False
    excess: float = 0.0

    @property
    def keeps_blocks(self) -> bool:
        """Whether rows here are whole rows there, as stored."""
        return not self.transposed and not self.excess and len(self.shape) == len(self.stored.shape) == 2


def views_of(tensors: Mapping[str, StoredTensor], facts: Facts, file: str) -> dict[str, View]:
    """All tensors under transformers' names.

    Raises UnexpectedTensor for a name that the row does not have, ShapeMismatch where a change cannot be undone.
    """
    found: dict[str, View] = {}
    for name, stored in tensors.items():
        match = _LAYER.fullmatch(name)
        template = f"blk.{{i}}.{match[2]}" if match else name
        suffix = _SUFFIX.search(template)
        stem, ending = _SUFFIX.sub("", template), suffix[0] if suffix else ""
        if stem not in facts.row.tensors:
            raise UnexpectedTensor(f"{name!r} in {file}")
        for ours, view in _parts(facts, stem, ending, View(name, stored, stored.shape)):
            placed = ours.replace("{i}", match[1]) if match else ours
            if placed in found:
                raise UnexpectedTensor(f"{name!r} in {file} says {placed!r} once more")
            found[placed] = view
    return found


def _parts(facts: Facts, stem: str, ending: str, whole: View) -> Iterator[tuple[str, View]]:
    """The names that one stored tensor has in transformers, and how each is read."""
    ours, change = facts.row.tensors[stem], facts.row.changes.get(stem)
    if isinstance(ours, tuple):
        sizes = (facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim, facts.kv_heads * facts.head_dim)
        _require_rows(whole, sum(sizes))
        first = 0
        for part, name, rows in zip("qkv", ours, sizes, strict=True):
            view = replace(whole, shape=(rows, *whole.shape[1:]), first=first)
            yield name + ending, _changed(view, facts.row.changes.get(f"blk.{{i}}.attn_{part}"), facts, ending)
            first += rows
    elif ours is not None and change == "by head":
        if len(whole.shape) != 2:
            raise ShapeMismatch(whole.source, str(list(whole.shape)), "one row for each head")
        for head in range(whole.shape[0]):
            yield ours.replace("{h}", str(head)) + ending, replace(whole, shape=whole.shape[1:], first=head)
    elif ours is not None:
        yield ours + ending, _changed(whole, change, facts, ending)


def _changed(view: View, change: Change | None, facts: Facts, ending: str) -> View:
    if change is None:
        return view
    if change == "one more":
        return replace(view, excess=1.0) if ending == ".weight" else view
    if change == "transposed":
        return replace(view, shape=view.shape[::-1], transposed=len(view.shape) == 2)
    heads, groups, size = facts.heads, facts.kv_heads, facts.head_dim
    if change == "rotary q":
        _require_rows(view, heads * size, even=size)
        return replace(view, order=_rotary(size))
    if change == "rotary k":
        _require_rows(view, groups * size, even=size)
        return replace(view, order=_rotary(size))
    if change == "qkv by head":
        groups = heads
    if heads % groups:
        raise ShapeMismatch(view.source, str(list(view.shape)), f"{heads} heads that share {groups} keys and values")
    _require_rows(view, (heads + 2 * groups) * size)
    return replace(view, order=_together(groups, heads // groups, size))


def _require_rows(view: View, rows: int, *, even: int = 2) -> None:
    if view.shape[0] != rows or even % 2:
        raise ShapeMismatch(view.source, str(list(view.shape)), f"{rows} rows in heads of an even size")


def _rotary(size: int) -> Callable[[Rows], Rows]:
    """For rotary embedding transformers pairs value j of a head with value j + size / 2, GGML with its neighbour.

    The converter therefore moved row (half p, j) of each head to 2 j + p.
    """

    def order(row: Rows) -> Rows:
        within = row % size
        return row - within + 2 * (within % (size // 2)) + within // (size // 2)

    return order


def _together(groups: int, queries: int, size: int) -> Callable[[Rows], Rows]:
    """Transformers: for each group its `queries` heads, a key and a value; GGUF: all queries, all keys, all values."""

    def order(row: Rows) -> Rows:
        group, within = row // ((queries + 2) * size), row % ((queries + 2) * size)
        head, value = within // size, within % size
        key = groups * queries + group
        place = np.where(head < queries, group * queries + head, np.where(head == queries, key, key + groups))
        return place * size + value

    return order

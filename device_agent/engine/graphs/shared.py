"""Rows on a graph of ours, whose past and present are bound to the same buffers (`kv: shared` in the manifest).

Attention appends in place and nothing is copied per token. A call binds a view of the buffers that has its own rows
alone: one row in use costs what a cache of one row would. Rows that decode together are made neighbours first. What
does not change between calls on the same rows stays bound; a decode step binds one input (the attention mask, whose
shape grows).

Where the time goes: SmolLM2-135M (4-bit, blocks with offsets) on two cores of Zen 3 without VNNI, 200 cached tokens a
row, milliseconds by operator; B is rows that decode together, S is tokens of one row:

    operator                      B1    B4    S4    B8    S8
    GroupQueryAttention          1.5   3.8   2.2   6.9   2.7
    MatMulNBits, layers          4.9   8.4   8.0  14.7  13.8
    MatMulNBits, logits          1.3   2.3   2.3   4.2   4.3
    AveragePool (offsets)        0.9   1.6   1.6   2.4   2.4
    Concat (offsets)             0.8   0.9   0.8   0.9   0.9
    all others                   1.2   1.7   1.5   2.0   1.8

Adapters need another graph over the same weights (edgekit.contract), whose idle branches cost a small model a tenth of
its speed. It is opened at the first request for an adapter and takes the other one's place until the model is loaded
again: each packs the weights into a copy of its own, so both are in memory only while the second one is opened. What
is cached stays, since both write the same keys and values. onnxruntime ignores adapters that are active in a run with
bound inputs (1.32), so their tensors are bound as inputs: 240 of them in 1.3 ms, once for each place that rows with an
adapter come to.

(Block means were pooled then; they are reduced now, see export/graph/blocks.py.) Attention costs each row the same
again, whatever the buffers' layout and capacity. Tokens of one row share a part of that, so verifying guesses is
cheaper than more rows.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from device_agent.engine.graphs.cache import KVCache
from device_agent.engine.graphs.prompt_graph import Binding, BoundPrompt, PromptGraph, bind_cache, mask_of
from device_agent.engine.rows import Floats, Lora, Snapshot
from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.errors import WrongBase

_KEPT_POSITIONS = 32
"""Logits of so many positions have a buffer that stays; of more, one that lives for a call. Verifying guessed tokens
and decoding all rows stay below."""

Ids = npt.NDArray[np.int64]


Bind = Callable[[], Binding]
"""A graph with nothing bound yet."""


class OnnxRows:
    """Implements rows.Rows. `width` of `read` is longrope's: see there.

    `adapted` opens the graph that takes adapters, if there is one. It raises BundleError.
    """

    def __init__(
        self, bind: Bind, arch: ModelArch, cache: KVCache, *, adapted: Callable[[], Bind] | None = None
    ) -> None:
        self.cache = cache
        self._bind = bind
        self._adapted = adapted
        self._takes_adapters = False
        self._loras: list[Lora | None] = [None] * len(cache.lengths)
        self._arch = arch
        self._prompt: PromptGraph | None = None
        self._windows: dict[tuple[int, int], _Window] = {}
        self._prompts: dict[int, BoundPrompt] = {}  # by place
        self._logits = np.empty((_KEPT_POSITIONS, arch.vocab), np.float32)
        self._ones = np.ones((1, 0), np.int64)

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""
        return self._arch.context

    @property
    def most_rows(self) -> int:
        """How many rows there can be."""
        return len(self.cache.lengths)

    @property
    def bytes_per_token(self) -> int:
        """Cache memory that one token of a row takes."""
        return self.cache.bytes_per_token

    @property
    def prompt(self) -> PromptGraph | None:
        """What reads long prompts, if something else than the decoder does."""
        return self._prompt

    def attach(self, prompt: PromptGraph | None) -> None:
        """Let `prompt` read what is long enough for it, from now on; None: nothing."""
        self._prompt = prompt
        self._prompts.clear()

    def beside(self) -> "OnnxRows":
        """One row over the same graph, with a cache of its own; another thread may use it."""
        return OnnxRows(self._bind, self._arch, self.cache.empty(most_rows=1))

    def length(self, row: int) -> int:
        """Tokens cached in a row. Raises ValueError if there is no such row."""
        if not 0 <= row < self.most_rows:
            raise ValueError(f"rows go from 0 to {self.most_rows - 1}, and {row} is none")
        return self.cache.lengths[row]

    def adapt(self, row: int, lora: Lora | None) -> None:
        """As `rows.Rows`."""
        self.length(row)
        if lora is not None and not self._takes_adapters:
            if self._adapted is None:
                raise WrongBase(lora.name, "the bundle takes no adapters")
            bind = self._adapted()
            self._unbind()
            self._bind, self._takes_adapters = bind, True
        self._loras[row] = lora

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1, width: int = 0) -> Floats:
        """As `rows.Rows`; the graph is told that the text is at least `width` tokens long."""
        past = self.length(row)
        total = past + len(ids)
        check_ids(ids, past=past, arch=self._arch)
        if not 0 <= keep <= len(ids):
            raise ValueError(f"no logits of {keep} of {len(ids)} tokens")
        self._reserve((row,), max(total, width))
        ahead = self._read_ahead(row, ids[: len(ids) - keep], width)
        if ahead < len(ids):
            window = self._window(self.cache.places[row], 1, self._loras[row])
            window.set_ids(ids[ahead:])
            mask = self._ones[:, :total] if width <= total else mask_of([total], width)
            self._run(window, mask, max(keep, 1))
            logits: Floats = window.logits[0, :keep]
        else:
            logits = self._logits[:0]
        self.cache.lengths[row] = total
        return logits

    def decode(self, ids: Mapping[int, int]) -> Floats:
        """As `rows.Rows`."""
        if not ids:
            raise ValueError("no rows to decode")
        if len(ids) == 1:
            ((row, token),) = ids.items()
            return self.read(row, (token,))
        pasts = {row: self.length(row) for row in ids}
        for row, token in ids.items():
            check_ids((token,), past=pasts[row], arch=self._arch)
        lora, *others = {self._loras[row] for row in ids}
        if others:
            raise ValueError("rows with different adapters do not decode together")
        self._reserve(tuple(ids), max(pasts.values()) + 1)
        first = self.cache.gather(tuple(ids))
        window = self._window(first, len(ids), lora)
        order = [self.cache.places[row] - first for row in ids]
        totals = [0] * len(ids)
        for at, (row, token) in zip(order, ids.items(), strict=True):
            totals[at] = pasts[row] + 1
            window.ids[at] = token
        self._run(window, mask_of(totals), 1)
        for row in ids:
            self.cache.lengths[row] += 1
        logits: Floats = window.logits[:, 0]
        return logits if order == list(range(len(ids))) else logits[order]

    def truncate(self, row: int, length: int) -> None:
        """Forget a row's tokens after the first `length`. Raises ValueError if there are fewer."""
        self.length(row)
        self.cache.truncate(row, length)

    def snapshot(self, row: int, length: int) -> Snapshot:
        """A copy of a row's first `length` tokens. Raises ValueError if there are fewer."""
        self.length(row)
        return self.cache.snapshot(row, length)

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Make a row hold exactly what `snapshot` holds. Raises ValueError if it is not of such a cache."""
        self.length(row)
        self.cache.check(snapshot)
        if snapshot.length:
            self._reserve((row,), snapshot.length)
        self.cache.restore(row, snapshot)

    def shrink(self) -> None:
        """Give back memory that no cached token needs."""
        self._unbind()
        self._logits = np.empty_like(self._logits)
        self.cache.shrink()
        self._ones = np.ones((1, self.cache.capacity), np.int64)

    def _reserve(self, rows: Sequence[int], tokens: int) -> None:
        places = self.cache.settle(rows)
        if self.cache.fits(places, tokens):
            return
        self._unbind()  # what is bound would keep the old buffers alive while they are copied
        self.cache.reserve(places, tokens)
        self._ones = np.ones((1, self.cache.capacity), np.int64)

    def _read_ahead(self, row: int, ids: Sequence[int], width: int) -> int:
        """How many of these ids, whose logits nobody wants, the prompt graph has read: all or none.

        It knows no adapters.
        """
        if self._prompt is None or self._loras[row] is not None or not ids or len(ids) < self._prompt.crossover:
            return 0
        place = self.cache.places[row]
        if place not in self._prompts:
            self._prompts[place] = self._prompt.over(self.cache.views(place, place + 1))
        try:
            self._prompts[place].read(self.cache.lengths[row], ids, width=width)
        except BaseException:
            self._unbind()
            raise
        return len(ids)

    def _unbind(self) -> None:
        self._windows.clear()
        self._prompts.clear()

    def _window(self, first: int, rows: int, lora: Lora | None) -> "_Window":
        found = self._windows.get((first, rows))
        if found is None or found.lora is not lora:
            views = self.cache.views(first, first + rows)
            found = self._windows[first, rows] = _Window(self._bind(), views, rows, lora)
        return found

    def _run(self, window: "_Window", mask: Ids, keep: int) -> None:
        """Compute the window's logits [rows, keep, vocab]. After an error nothing stays bound."""
        kept = window.rows * keep <= _KEPT_POSITIONS
        try:
            window.keep(keep, self._logits if kept else np.empty((window.rows * keep, self._arch.vocab), np.float32))
            window.binding.input(contract.ATTENTION_MASK, mask)
            window.binding.run()
        except BaseException:
            self._unbind()
            raise
        if not kept:
            self._unbind()  # or the large buffer would stay bound


class _Window:
    """Neighbouring places, and all that is bound for them."""

    def __init__(
        self, binding: Binding, cache: Sequence[npt.NDArray[np.generic]], rows: int, lora: Lora | None
    ) -> None:
        self.binding = binding
        self.rows = rows
        self.lora = lora
        self.ids = self._one_each = np.zeros((rows, 1), np.int64)
        self.logits: Floats = np.empty((0, 0, 0), np.float32)
        self._keep = np.zeros((), np.int64)
        bind_cache(binding, cache)
        binding.input(contract.INPUT_IDS, self.ids)
        binding.input(contract.LOGITS_TO_KEEP, self._keep)
        for name, array in lora.tensors.items() if lora is not None else ():
            binding.input(name, array)

    def set_ids(self, ids: Sequence[int]) -> None:
        """Of a window of one row."""
        array = self._one_each if len(ids) == 1 else np.empty((1, len(ids)), np.int64)
        array[0] = ids
        if array is not self.ids:
            self.binding.input(contract.INPUT_IDS, array)
            self.ids = array

    def keep(self, keep: int, buffer: Floats) -> None:
        """Have the logits of each row's last `keep` positions written to the start of `buffer` [positions, vocab]."""
        if self._keep != keep or self.logits.base is not buffer:
            self.logits = buffer[: self.rows * keep].reshape(self.rows, keep, -1)
            self.binding.output(contract.LOGITS, self.logits)
            self._keep[...] = keep  # bound by address


def check_ids(ids: Sequence[int], *, past: int, arch: ModelArch) -> None:
    """Raise ValueError for ids that do not fit after `past` tokens or are no tokens of the vocabulary."""
    if not ids or past + len(ids) > arch.context:
        raise ValueError(f"{len(ids)} tokens do not fit after {past}")
    # GatherBlockQuantized (onnxruntime 1.32) reads whatever memory an id outside of its table points to.
    if min(ids) < 0 or max(ids) >= arch.vocab:
        raise ValueError(f"token ids go from 0 to {arch.vocab - 1}")

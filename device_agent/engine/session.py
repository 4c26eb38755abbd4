"""onnxruntime: the only module that imports it.

Past and present of the KV cache are bound to the same buffers, so attention appends in place and
nothing is copied per token. What does not change between tokens is bound once; a decode step binds
one input (the attention mask, whose shape grows) and runs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from device_agent.engine.cache import KVCache
from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.bundle import Bundle
from edgekit.errors import CorruptBundle

_CPU = "cpu"


class OnnxDecoder:
    """One sequence on one session: `step` appends tokens and returns the logits of the last one."""

    def __init__(self, session: onnxruntime.InferenceSession, arch: ModelArch) -> None:
        self._session = session
        self._arch = arch
        self._cache = KVCache(arch)
        self._binding = session.io_binding()
        self._mask = np.ones((1, self._cache.capacity), np.int64)
        self._logits = np.empty((1, 1, arch.vocab), np.float32)
        self._one_id = np.empty((1, 1), np.int64)
        self._keep_last = np.asarray(1, np.int64)
        self._bound_ids: npt.NDArray[np.int64] | None = None
        self._bind_input(contract.LOGITS_TO_KEEP, self._keep_last)
        self._bind_output(contract.LOGITS, self._logits)
        self._bind_cache()

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._cache.length

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""
        return self._arch.context

    @property
    def cache_bytes(self) -> int:
        """Memory that the cache takes now."""
        return self._cache.bytes

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        if not 0 <= length <= self._cache.length:
            raise ValueError(f"cannot keep {length} of {self._cache.length} tokens")
        self._cache.length = length

    def step(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append `ids` and return the logits [vocab] after the last; the array is reused by the next step.

        Raises ValueError if they do not fit into the context.
        """
        total = self._cache.length + len(ids)
        if not ids or total > self._arch.context:
            raise ValueError(f"{len(ids)} tokens do not fit after {self._cache.length}")
        if self._cache.reserve(total):
            self._mask = np.ones((1, self._cache.capacity), np.int64)
            self._bind_cache()
        self._set_ids(ids)
        self._bind_input(contract.ATTENTION_MASK, self._mask[:, :total])
        self._session.run_with_iobinding(self._binding)
        self._cache.length = total
        return self._logits[0, 0]

    def _set_ids(self, ids: Sequence[int]) -> None:
        array = self._one_id if len(ids) == 1 else np.empty((1, len(ids)), np.int64)
        array[0] = ids
        if self._bound_ids is not array:
            self._bind_input(contract.INPUT_IDS, array)
            self._bound_ids = array

    def _bind_cache(self) -> None:
        for i in range(self._arch.layers):
            for at, half in enumerate(contract.HALVES):
                buffer = self._cache.buffers[2 * i + at]
                self._bind_input(contract.past_name(i, half), buffer)
                self._bind_output(contract.present_name(i, half), buffer)

    def _bind_input(self, name: str, array: npt.NDArray[np.generic]) -> None:
        """By address: `array` must be contiguous and stay alive while it is bound."""
        self._binding.bind_input(name, _CPU, 0, array.dtype.type, array.shape, array.ctypes.data)

    def _bind_output(self, name: str, array: npt.NDArray[np.generic]) -> None:
        self._binding.bind_output(name, _CPU, 0, array.dtype.type, array.shape, array.ctypes.data)


def open_decoder(bundle: Bundle, *, threads: int) -> OnnxDecoder:
    """Load the bundle's graph on `threads` threads. Raises CorruptBundle if onnxruntime does not take it."""
    return OnnxDecoder(_session(bundle, contract.MODEL_FILE, threads), bundle.manifest.arch)


def _session(bundle: Bundle, name: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors reach us as exceptions; warnings about our own graph help nobody
    path: Path = bundle.path(name)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
        raise CorruptBundle(str(bundle.folder), f"onnxruntime cannot load {name}: {error}"[:1000]) from error


def runtime_version() -> str:
    """onnxruntime's version."""
    return str(onnxruntime.__version__)

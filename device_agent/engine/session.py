"""onnxruntime: the only module that imports it.

Past and present of the KV cache are bound to the same buffers, so attention appends in place and
nothing is copied per token. What does not change between tokens is bound once; a decode step binds
one input (the attention mask, whose shape grows) and runs.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime

from device_agent.engine.cache import KVCache
from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.bundle import Bundle
from edgekit.errors import BundleError, CorruptBundle, UnsupportedFormat, UsageError

_CPU = "cpu"

_SPIN_US = "50"
"""How long a worker thread waits busily for the next operator before it sleeps. onnxruntime's default outlasts any gap
between operators, and where a browser runs too, such threads fight it for the cores: SmolLM2 on two cores decoded 63
tokens/s beside one busy process with the default and 78 with 20 to 100 us; alone 128, and 132 to 139."""
_FREE = None
"""A dimension that may have any length."""


class OnnxDecoder:
    """One sequence on one session: `step` appends tokens and returns the logits of the last one."""

    def __init__(self, session: onnxruntime.InferenceSession, arch: ModelArch, *, name: str) -> None:
        self._session = session
        self._arch = arch
        self._name = name
        self._cache = KVCache(arch)
        self._binding = session.io_binding()
        self._mask = np.ones((1, self._cache.capacity), np.int64)
        self._logits: npt.NDArray[np.float32] = np.empty(arch.vocab, np.float32)
        self._one_id = np.empty((1, 1), np.int64)
        self._keep_last = np.asarray(1, np.int64)
        self._bound_ids: npt.NDArray[np.int64] | None = None
        self._bind_input(contract.LOGITS_TO_KEEP, self._keep_last)
        self._bind_output(contract.LOGITS, self._logits.reshape(1, 1, -1))
        self._bind_cache()

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._cache.length

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""
        return self._arch.context

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        if not 0 <= length <= self._cache.length:
            raise ValueError(f"cannot keep {length} of {self._cache.length} tokens")
        self._cache.length = length

    def step(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append `ids` and return the logits [vocab] after the last; the array is reused by the next step.

        Raises ValueError if they do not fit into the context or are no tokens of the vocabulary, and BundleError if
        onnxruntime fails.
        """
        total = self._cache.length + len(ids)
        if not ids or total > self._arch.context:
            raise ValueError(f"{len(ids)} tokens do not fit after {self._cache.length}")
        # GatherBlockQuantized (onnxruntime 1.32) reads whatever memory an id outside of its table points to.
        if min(ids) < 0 or max(ids) >= self._arch.vocab:
            raise ValueError(f"token ids go from 0 to {self._arch.vocab - 1}")
        if self._cache.reserve(total):
            self._mask = np.ones((1, self._cache.capacity), np.int64)
            self._bind_cache()
        self._set_ids(ids)
        self._bind_input(contract.ATTENTION_MASK, self._mask[:, :total])
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
            raise BundleError(self._name, f"onnxruntime cannot compute with it: {error}"[:1000]) from error
        self._cache.length = total
        return self._logits

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
    """Load the bundle's graph on `threads` threads.

    Raises UnsupportedFormat if it needs a newer onnxruntime, and CorruptBundle if onnxruntime does not take it or
    if it is not the graph that the manifest describes; UsageError for less than one thread.
    """
    if threads < 1:
        raise UsageError(f"{threads} threads: at least one is needed.")
    name, arch = str(bundle.folder), bundle.manifest.arch
    _check_version(name, bundle.manifest.requires.onnxruntime)
    session = _session(bundle, threads)
    # Before a buffer is made: it is the graph, not the manifest alone, that says how large they are.
    if problem := _difference(session, arch):
        raise CorruptBundle(
            name, f"{contract.MODEL_FILE} is not the graph that {contract.MANIFEST_FILE} describes: {problem}"
        )
    return OnnxDecoder(session, arch, name=name)


def _check_version(name: str, needed: str) -> None:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,3}", needed):
        raise CorruptBundle(name, f"{needed[:100]!r} is not a version of onnxruntime")
    if _numbers(needed) > _numbers(onnxruntime.__version__):
        raise UnsupportedFormat(name, f"onnxruntime {needed} is needed, and this is {onnxruntime.__version__}")


def _numbers(version: str) -> list[int]:
    """The leading numbers of a version such as "1.32.0" or "1.33.0.dev20261101"."""
    return [int(number) for number in re.findall(r"\d+", version.partition("dev")[0])]


def _session(bundle: Bundle, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    options.log_severity_level = 3  # errors reach us as exceptions; warnings about our own graph help nobody
    path = bundle.path(contract.MODEL_FILE)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as in OnnxDecoder.step
        problem = f"onnxruntime cannot load {contract.MODEL_FILE}: {error}"
        raise CorruptBundle(str(bundle.folder), problem[:1000]) from error


def _difference(session: onnxruntime.InferenceSession, arch: ModelArch) -> str:
    """Where the graph's inputs and outputs depart from edgekit.contract; empty if nowhere."""
    wanted: dict[str, tuple[str, list[int | None]]] = {
        contract.INPUT_IDS: ("tensor(int64)", [_FREE, _FREE]),
        contract.ATTENTION_MASK: ("tensor(int64)", [_FREE, _FREE]),
        contract.LOGITS_TO_KEEP: ("tensor(int64)", []),
        contract.LOGITS: ("tensor(float)", [_FREE, _FREE, arch.vocab]),
    }
    given = [*session.get_inputs(), *session.get_overridable_initializers(), *session.get_outputs()]
    if len(given) != len(wanted) + 4 * arch.layers:  # before there is a name for each layer of an absurd manifest
        return f"it has {len(given)} inputs and outputs, not those of {arch.layers} layers"
    for layer in range(arch.layers):
        for half in contract.HALVES:
            cache: tuple[str, list[int | None]] = ("tensor(float)", [_FREE, arch.kv_heads, _FREE, arch.head_dim])
            wanted[contract.past_name(layer, half)] = wanted[contract.present_name(layer, half)] = cache
    for value in given:
        if value.name not in wanted:
            return f"it has {value.name!r}"
        kind, shape = wanted[value.name]
        same = len(shape) == len(value.shape) and all(
            want is _FREE or want == have for want, have in zip(shape, value.shape, strict=True)
        )
        if value.type != kind or not same:
            return f"{value.name} is {value.type} {value.shape}"
    return ""

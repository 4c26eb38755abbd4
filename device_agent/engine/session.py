"""onnxruntime: the only module that imports it.

`open_decoder` and `open_embedder` load a bundle's graph and check it against the manifest.

In a graph of ours past and present of the KV cache are bound to the same buffers, so attention appends
in place and nothing is copied per token. What does not change between tokens is bound once; a decode
step binds one input (the attention mask, whose shape grows) and runs.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers

from device_agent.engine import loading, signature
from device_agent.engine.cache import KVCache
from device_agent.engine.concat import ConcatDecoder
from device_agent.engine.embed import Embedder
from device_agent.engine.generate import StepDecoder
from device_agent.engine.longrope import LongropeDecoder
from device_agent.engine.signature import GraphValue, Signature
from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.bundle import Bundle
from edgekit.contract import CacheType
from edgekit.errors import BundleError, CorruptBundle, UnsupportedFormat, UsageError

_CPU = "cpu"


class OnnxDecoder:
    """One sequence on one session: `step` appends tokens and returns the logits of the last one."""

    def __init__(
        self, session: onnxruntime.InferenceSession, arch: ModelArch, *, name: str, cache: CacheType = "float32"
    ) -> None:
        self._session = session
        self._arch = arch
        self._name = name
        self._cache = KVCache(arch, cache)
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

    def step(self, ids: Sequence[int], *, width: int = 0) -> npt.NDArray[np.float32]:
        """Append `ids` and return the logits [vocab] after the last; the array is reused by the next step.

        The graph is told that the text is at least `width` tokens long (see `longrope`). Raises ValueError if they do
        not fit into the context or are no tokens of the vocabulary, and BundleError if onnxruntime fails.
        """
        total = self._cache.length + len(ids)
        if not ids or total > self._arch.context:
            raise ValueError(f"{len(ids)} tokens do not fit after {self._cache.length}")
        # GatherBlockQuantized (onnxruntime 1.32) reads whatever memory an id outside of its table points to.
        if min(ids) < 0 or max(ids) >= self._arch.vocab:
            raise ValueError(f"token ids go from 0 to {self._arch.vocab - 1}")
        if self._cache.reserve(max(total, width)):
            self._mask = np.ones((1, self._cache.capacity), np.int64)
            self._bind_cache()
        self._set_ids(ids)
        mask = self._mask[:, :total]
        if width > total:
            mask = np.concatenate([mask, np.zeros((1, width - total), np.int64)], axis=1)
        self._bind_input(contract.ATTENTION_MASK, mask)
        _run(self._session, self._binding, self._name)
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


class _GrowingSession:
    """Implements concat.GrowingGraph: what onnxruntime returned as present goes in as past, and is never copied."""

    def __init__(self, session: onnxruntime.InferenceSession, arch: ModelArch, *, name: str) -> None:
        self.inputs = frozenset(value.name for value in _inputs(session))
        self._session = session
        self._name = name
        layers = [(layer, half) for layer in range(arch.layers) for half in contract.HALVES]
        self._pasts = [contract.past_name(*place) for place in layers]
        self._presents = [contract.present_name(*place) for place in layers]
        empty = np.zeros((1, arch.kv_heads, 0, arch.head_dim), np.float32)
        self._empty = [onnxruntime.OrtValue.ortvalue_from_numpy(empty) for _ in layers]
        self._cache = self._empty

    def append(self, feeds: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """As `GrowingGraph`."""
        binding = self._session.io_binding()
        _bind(binding, feeds)
        for name, value in zip(self._pasts, self._cache, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in (contract.LOGITS, *self._presents):
            binding.bind_output(name, _CPU)
        _run(self._session, binding, self._name)
        logits, *self._cache = binding.get_outputs()
        found: npt.NDArray[np.float32] = logits.numpy()
        return found

    def truncate(self, length: int) -> None:
        """As `GrowingGraph`."""
        if not length:
            self._cache = self._empty
            return
        kept = [np.ascontiguousarray(value.numpy()[:, :, :length]) for value in self._cache]
        self._cache = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in kept]


def open_decoder(bundle: Bundle, *, threads: int) -> StepDecoder:
    """Load the bundle's graph on `threads` threads, with the kind of cache that the manifest says.

    Raises UnsupportedFormat if it needs a newer onnxruntime, and CorruptBundle if onnxruntime does not take it or
    if it is not the graph that the manifest describes; UsageError for less than one thread, or for a model that
    does not generate.
    """
    name, manifest = str(bundle.folder), bundle.manifest
    if manifest.task != "generate":
        raise UsageError(f"{name} holds an embedding model, which writes no text. Use: edgekit embed")
    if manifest.kv == "concat":
        session = _checked_session(bundle, signature.concat(manifest.arch), threads)
        return ConcatDecoder(_GrowingSession(session, manifest.arch, name=name), manifest.arch)
    session = _checked_session(bundle, signature.shared(manifest.arch, manifest.cache), threads)
    decoder = OnnxDecoder(session, manifest.arch, name=name, cache=manifest.cache)
    limit = manifest.arch.rotary_limit
    return decoder if limit is None else LongropeDecoder(decoder, limit)


def open_embedder(bundle: Bundle, tokenizer: tokenizers.Tokenizer, *, threads: int) -> Embedder:
    """Load an encoder. Raises as `open_decoder` does; UsageError for a model that makes no vectors."""
    name, manifest = str(bundle.folder), bundle.manifest
    if manifest.embedding is None:
        raise UsageError(f"{name} holds a model that writes text, not vectors. Use: edgekit generate")
    session = _checked_session(bundle, signature.encoder(manifest.arch), threads)

    def encode(feeds: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        binding = session.io_binding()
        _bind(binding, feeds)
        binding.bind_output(contract.HIDDEN_STATES, _CPU)
        _run(session, binding, name)
        states: npt.NDArray[np.float32] = binding.get_outputs()[0].numpy()
        return states

    inputs = frozenset(value.name for value in _inputs(session))
    return Embedder(encode, tokenizer, manifest.embedding, inputs=inputs, vocab=manifest.arch.vocab)


def _bind(binding: onnxruntime.IOBinding, feeds: Mapping[str, npt.NDArray[np.int64]]) -> None:
    for name, array in feeds.items():  # bind_cpu_input does not know inputs that have a default
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))


def _run(session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, name: str) -> None:
    """Raises BundleError."""
    try:
        session.run_with_iobinding(binding)
    except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
        raise BundleError(name, f"onnxruntime cannot compute with it: {error}"[:1000]) from error


def _checked_session(bundle: Bundle, wanted: Signature, threads: int) -> onnxruntime.InferenceSession:
    if threads < 1:
        raise UsageError(f"{threads} threads: at least one is needed.")
    name = str(bundle.folder)
    _check_version(name, bundle.manifest.requires.onnxruntime)
    session = _session(bundle, threads)
    # Before a buffer is made: it is the graph, not the manifest alone, that says how large they are.
    given = [
        GraphValue(value.name, value.type, tuple(value.shape)) for value in (*_inputs(session), *session.get_outputs())
    ]
    if problem := wanted.problem(given):
        raise CorruptBundle(
            name, f"{contract.MODEL_FILE} is not the graph that {contract.MANIFEST_FILE} describes: {problem}"
        )
    return session


def _inputs(session: onnxruntime.InferenceSession) -> list[onnxruntime.NodeArg]:
    """Those that must be given, and those with a default."""
    return [*session.get_inputs(), *session.get_overridable_initializers()]


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
    for key, value in loading.ENTRIES.items():
        options.add_session_config_entry(key, value)
    options.log_severity_level = 3  # errors reach us as exceptions; warnings about our own graph help nobody
    path = bundle.path(contract.MODEL_FILE)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as in _run
        problem = f"onnxruntime cannot load {contract.MODEL_FILE}: {error}"
        raise CorruptBundle(str(bundle.folder), problem[:1000]) from error
    loading.let_go_of_weights(path)
    return session

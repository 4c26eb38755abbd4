"""onnxruntime: the only module that imports it.

`open_rows`, `open_prompt_graph` and `open_embedder` load a graph and check it against the manifest. What they return
knows no onnxruntime: it gets a `Binding`, a `GrowingGraph` or a function.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers

from device_agent.engine.embed import Embedder
from device_agent.engine.graphs import loading, signature
from device_agent.engine.graphs.cache import KVCache
from device_agent.engine.graphs.concat import ConcatRows
from device_agent.engine.graphs.longrope import LongropeRows
from device_agent.engine.graphs.prompt_graph import OnnxPromptGraph
from device_agent.engine.graphs.shared import Bind, OnnxRows
from device_agent.engine.graphs.signature import GraphValue, Signature
from device_agent.engine.rows import Rows
from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.bundle import Bundle
from edgekit.errors import BundleError, CorruptBundle, UnsupportedFormat, UsageError

_CPU = "cpu"
RUNTIME_VERSION: str = onnxruntime.__version__


class _SessionBinding:
    """Implements prompt_graph.Binding."""

    def __init__(self, session: onnxruntime.InferenceSession, *, name: str) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._name = name
        self._inputs: dict[str, npt.NDArray[np.generic]] = {}  # bound by address: they must stay alive
        self._outputs: dict[str, npt.NDArray[np.generic]] = {}

    def input(self, name: str, array: npt.NDArray[np.generic]) -> None:
        """As `Binding`."""
        self._inputs[name] = array
        self._binding.bind_input(name, _CPU, 0, array.dtype.type, array.shape, array.ctypes.data)

    def output(self, name: str, array: npt.NDArray[np.generic]) -> None:
        """As `Binding`."""
        self._outputs[name] = array
        self._binding.bind_output(name, _CPU, 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self) -> None:
        """As `Binding`."""
        _run(self._session, self._binding, self._name)


class _GrowingSession:
    """Implements concat.GrowingGraph: what onnxruntime returned as present goes in as past, and is never copied."""

    def __init__(self, session: onnxruntime.InferenceSession, arch: ModelArch, *, name: str) -> None:
        self.inputs = frozenset(value.name for value in _inputs(session))
        self._session = session
        self._name = name
        layers = [(layer, half) for layer in range(arch.layers) for half in contract.HALVES]
        self._pasts = [contract.past_name(*place) for place in layers]
        self._presents = [contract.present_name(*place) for place in layers]
        self._cache: list[onnxruntime.OrtValue] = []
        self.put([np.zeros((arch.kv_heads, 0, arch.head_dim), np.float32)] * len(layers))

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

    def cached(self, length: int) -> tuple[npt.NDArray[np.generic], ...]:
        """As `GrowingGraph`."""
        return tuple(value.numpy()[0, :, :length].copy() for value in self._cache)

    def put(self, arrays: Sequence[npt.NDArray[np.generic]]) -> None:
        """As `GrowingGraph`."""
        self._cache = [onnxruntime.OrtValue.ortvalue_from_numpy(array[None]) for array in arrays]


def open_rows(
    bundle: Bundle, *, threads: int, most_rows: int = 8, previous: Rows | None = None
) -> OnnxRows | LongropeRows | ConcatRows:
    """Load the bundle's graph on `threads` threads, with the kind of cache that the manifest says.

    There is one row instead of `most_rows` where a graph reads one text at a time. `previous` are rows of the same
    bundle, not to be used any more: what they have cached is taken over where that is possible without a copy, which
    it is if they have as many rows and are no others' kind.

    Raises UnsupportedFormat if it needs a newer onnxruntime, and CorruptBundle if onnxruntime does not take it or
    if it is not the graph that the manifest describes; UsageError for less than one thread, or for a model that
    does not generate.
    """
    name, manifest = str(bundle.folder), bundle.manifest
    if manifest.task != "generate":
        raise UsageError(f"{name} holds an embedding model, which writes no text. Use: edgekit embed")
    if manifest.kv == "concat":
        session = _checked_session(bundle, signature.concat(manifest.arch), threads)
        return ConcatRows(_GrowingSession(session, manifest.arch, name=name), manifest.arch)
    session = _checked_session(bundle, signature.shared(manifest.arch, manifest.cache), threads)
    limit = manifest.arch.rotary_limit
    most_rows = most_rows if limit is None else 1
    cache = KVCache(manifest.arch, manifest.cache, most_rows=most_rows)
    if isinstance(previous, OnnxRows) and previous.most_rows == most_rows:
        cache = previous.cache

    def adapted() -> Bind:
        wanted = signature.adapted(manifest.arch, manifest.cache)
        return partial(_SessionBinding, _loaded(bundle.path(contract.ADAPTERS_FILE), wanted, threads), name=name)

    rows = OnnxRows(
        partial(_SessionBinding, session, name=name),
        manifest.arch,
        cache,
        adapted=adapted if bundle.has(contract.ADAPTERS_FILE) else None,
    )
    return rows if limit is None else LongropeRows(rows, limit)


def open_prompt_graph(path: Path, bundle: Bundle, *, threads: int, crossover: int) -> OnnxPromptGraph:
    """Load a graph that reads prompts into the same cache as the bundle's, if they have `crossover` tokens or more.

    Raises CorruptBundle, and UsageError for less than one thread.
    """
    manifest = bundle.manifest
    session = _loaded(path, signature.prompt(manifest.arch, manifest.cache), threads)
    return OnnxPromptGraph(partial(_SessionBinding, session, name=str(path.parent)), crossover=crossover)


def read_parameters(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The tensors of a file in onnxruntime's adapter format, in memory of their own.

    onnxruntime holds the file's tables and sizes against each other first. Raises CorruptBundle.
    """
    try:
        parameters = onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
        return {name: value.numpy().copy() for name, value in parameters.items()}
    except Exception as error:  # as in _run
        raise CorruptBundle(str(path.parent), f"onnxruntime cannot read {path.name}: {error}"[:1000]) from error


def open_embedder(bundle: Bundle, tokenizer: tokenizers.Tokenizer, *, threads: int) -> Embedder:
    """Load an encoder. Raises as `open_rows` does; UsageError for a model that makes no vectors."""
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
    _check_version(str(bundle.folder), bundle.manifest.requires.onnxruntime)
    return _loaded(bundle.path(contract.MODEL_FILE), wanted, threads)


def _loaded(path: Path, wanted: Signature, threads: int) -> onnxruntime.InferenceSession:
    if threads < 1:
        raise UsageError(f"{threads} threads: at least one is needed.")
    session = _session(path, threads)
    # Before a buffer is made: it is the graph, not the manifest alone, that says how large they are.
    given = [
        GraphValue(value.name, value.type, tuple(value.shape)) for value in (*_inputs(session), *session.get_outputs())
    ]
    if problem := wanted.problem(given):
        raise CorruptBundle(
            str(path.parent), f"{path.name} is not the graph that {contract.MANIFEST_FILE} describes: {problem}"
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


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    for key, value in loading.ENTRIES.items():
        options.add_session_config_entry(key, value)
    options.log_severity_level = 3  # errors reach us as exceptions; warnings about our own graph help nobody
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as in _run
        raise CorruptBundle(str(path.parent), f"onnxruntime cannot load {path.name}: {error}"[:1000]) from error
    loading.let_go_of_weights(path)
    return session

"""Proof that the twin which reads prompts writes nearly what the decoder itself would, and what the rest costs.

Its weights are derived here as a device derives them, with the smaller range of codes: processors that take the larger
one lose less. A wrong graph shows in the keys and values of the first layers, where little has been rounded yet. What
rounding costs shows in the tokens that the decoder then reads: their distributions against those after a prompt that
it has read itself.

SmolLM2-135M: first layer 0.013 and 0.044 (keys, values) of their norm, last layers 0.18; KL 0.016 nats on WikiText-2.
Of a large model only the first layers are derived and compared: an export takes no more memory than a few of its
layers.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.errors import VerificationFailed
from edgekit.hardware import usable_cores
from edgekit.twin.codes import Reach
from edgekit.twin.expand import expand, read_layout
from export.divergence import divergence
from export.graph import prefill
from export.quantize.plan import Plan
from export.runner import Runner
from export.segments import Cache

Floats = npt.NDArray[np.float32]

MAX_ERRORS = (0.15, 0.5)
"""Of the norm of a layer's keys or values, in the first layers: rounding leaves 0.06 and 0.17 of random models."""

MAX_PROMPT_KL = 0.1
"""Nats. A model whose activations do not bear it is shipped without a twin."""

LARGEST_BYTES = 512 << 20
"""Of a twin's weights: larger ones are checked in part."""

_REACH: Reach = 64


@dataclass(frozen=True)
class Read:
    """Ids that the decoder has read: their logits [tokens, vocab] and the cache that they left."""

    ids: Sequence[int]
    logits: Floats
    cache: Cache


def against_decoder(folder: Path, arch: ModelArch, plan: Plan, read: Read, decoder: Runner) -> float | None:
    """KL in nats of tokens after a prompt; None if it was not measured, or if it was too much and the twin is gone.

    Raises VerificationFailed for a graph that computes something else.
    """
    specs = {name: matrix.spec.name for name, matrix in plan.items()}
    whole = read_layout(folder, specs).size_bytes <= LARGEST_BYTES
    checked = arch if whole else _first_layers(arch)
    prompt = read.ids[: len(read.ids) * 3 // 4]
    with TemporaryDirectory(dir=folder, prefix=".twin-") as work:
        graph = Path(work) / contract.PREFILL_FILE
        if whole:
            shutil.copyfile(folder / contract.PREFILL_FILE, graph)
        else:
            prefill.save(folder, graph, checked, plan)
        layout = read_layout(folder, specs, graph)
        target = graph.with_name(contract.PREFILL_DATA)
        expand(folder / contract.DATA_FILE, target, layout, reach=_REACH, step=lambda: None)
        cache = _read(graph, checked, prompt, decoder.empty())
    _check_first_layers(cache, read.cache, len(prompt))
    if not whole:
        return None
    after = read.ids[len(prompt) :]
    kl, _ = divergence(read.logits[len(prompt) :], decoder.run([after], [cache])[0][0])
    if kl <= MAX_PROMPT_KL:
        return kl
    (folder / contract.PREFILL_FILE).unlink()
    return None


def _first_layers(arch: ModelArch) -> ModelArch:
    layers = min(arch.layers, len(MAX_ERRORS))
    return msgspec.structs.replace(
        arch, layers=layers, local_layers=tuple(layer for layer in arch.local_layers if layer < layers)
    )


def _read(graph: Path, arch: ModelArch, ids: Sequence[int], empty: Cache) -> Cache:
    """The cache after `ids`; `empty` is one of no tokens."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    layers = [(i, half) for i in range(arch.layers) for half in contract.HALVES]
    feed: dict[str, npt.NDArray[np.generic]] = {
        contract.INPUT_IDS: np.asarray([ids], np.int64),
        contract.ATTENTION_MASK: np.ones((1, len(ids)), np.int64),
    }
    feed |= {contract.past_name(*each): value for each, value in zip(layers, empty, strict=False)}
    cache: Cache = session.run([contract.present_name(*each) for each in layers], feed)
    return cache


def _check_first_layers(found: Cache, expected: Cache, tokens: int) -> None:
    for i, (one, other) in enumerate(zip(found[: 2 * len(MAX_ERRORS)], expected, strict=False)):
        right = other[:, :, :tokens].astype(np.float32)
        error = float(np.linalg.norm(one.astype(np.float32) - right) / np.linalg.norm(right))
        layer, half = i // 2, contract.HALVES[i % 2]
        if not error <= MAX_ERRORS[layer]:  # NaN is not
            raise VerificationFailed(f"the graph that reads prompts is {error:.1%} off in layer {layer}'s {half}s")

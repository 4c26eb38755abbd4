"""Proof that a bundle and an adapter beside it compute what a merged model would.

1. With activations and cache in float, logits equal those of a numpy reference over the bundle's bytes whose matrices
   have scaling * B A added, straight from PEFT's tensors: a branch at the wrong place, a wrong scaling or a damaged
   file cannot pass. onnxruntime reads the adapter's file as any program does that has nothing of ours.
2. As devices run it, the distributions stay near. How far the adapter moves them from the base's is recorded too.
3. Greedy continuations are recorded: any device can repeat them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edgekit import contract
from edgekit.adapter import linear_parts, linears
from edgekit.arch import ModelArch
from edgekit.bundle import Bundle
from edgekit.errors import VerificationFailed
from edgekit.hardware import usable_cores
from edgekit.manifest import Golden
from edgekit.quant import QuantSpec
from export import reference, verify
from export.adapt.convert import Updates
from export.divergence import divergence
from export.matrices import BundleMatrices
from export.quantize.plan import Plan, PlannedMatrix
from export.segments import Cache, make_exact

Floats = npt.NDArray[np.float32]

_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
"""onnxruntime's session entry: where the data file is of a graph that is given as bytes."""


@dataclass(frozen=True)
class Report:
    """What was measured: `kl` (nats) is what rounding costs, `moved_kl` how far the adapter moves the base."""

    error: float
    kl: float
    moved_kl: float
    tokens: int
    golden: tuple[Golden, ...]

    def quality(self) -> dict[str, float]:
        """As adapter.json records it."""
        return {
            "verification_error": round(self.error, 7),
            "kl": round(self.kl, 6),
            "moved_kl": round(self.moved_kl, 6),
            "tokens": float(self.tokens),
        }


def against_merged(
    base: Bundle, weights: Path, changes: Updates, *, probe: Sequence[int], step: Callable[[str], None]
) -> Report:
    """Check the adapter file `weights`. Raises VerificationFailed."""
    arch = base.manifest.arch
    step("comparing with merged weights in numpy")
    expected = reference.logits(arch, Merged(BundleMatrices(base.folder, plan_of(base)), arch, changes), probe)
    exact = Beside(base, weights, exact=True)
    error = float(np.abs(exact.logits(probe) - expected).max() / np.abs(expected).max())
    if not error <= verify.MAX_ERROR:  # NaN is not
        raise VerificationFailed(f"logits differ from the merged model's by {error:.2%}")
    del exact  # its packed weights go before others come
    step("measuring quality")
    beside = Beside(base, weights, exact=False)
    found = beside.logits(probe)
    kl, _ = divergence(expected, found)
    if not kl <= verify.MAX_KL_OF_ACTIVATIONS:
        raise VerificationFailed(f"rounded activations cost {kl:.3f} nats")
    moved, _ = divergence(beside.logits(probe, adapted=False), found)
    step("recording golden tokens")
    golden = verify.golden(beside, [each.prompt for each in base.manifest.golden], base.manifest.tokens.eos)
    return Report(error, kl, moved, len(probe), golden)


class Merged:
    """Implements reference.Matrices: those of a bundle, with the adapter's products added to its linears."""

    def __init__(self, inner: reference.Matrices, arch: ModelArch, changes: Updates) -> None:
        self._inner, self._arch, self._changes = inner, arch, changes

    def multiply(self, name: str, x: Floats) -> Floats:
        """As `reference.Matrices`."""
        product, changed = self._inner.multiply(name, x), self._changes.get(name, {})
        at = 0
        for part, (_, outputs) in linear_parts(self._arch, name).items() if changed else ():
            if part in changed:
                product[:, at : at + outputs] += x @ (changed[part].b() @ changed[part].a()).T
            at += outputs
        return product

    def lookup(self, ids: Sequence[int]) -> Floats:
        """As `reference.Matrices`."""
        return self._inner.lookup(ids)

    def vector(self, name: str) -> Floats:
        """As `reference.Matrices`."""
        return self._inner.vector(name)

    def has(self, name: str) -> bool:
        """As `reference.Matrices`."""
        return self._inner.has(name)


class Beside:
    """Implements runner.Runner: a bundle with an adapter active."""

    def __init__(self, base: Bundle, weights: Path, *, exact: bool) -> None:
        model = onnx.load(str(base.path(contract.ADAPTERS_FILE)), load_external_data=False)
        if exact:
            make_exact(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        options.log_severity_level = 3
        options.add_session_config_entry(_DATA_FOLDER, str(base.folder))
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._adapter = onnxruntime.LoraAdapter()
        self._adapter.Load(str(weights))
        self._arch = base.manifest.arch
        self._type = np.float32 if exact else np.dtype(base.manifest.cache)
        self._layers = [(i, half) for i in range(self._arch.layers) for half in contract.HALVES]

    def logits(self, ids: Sequence[int], *, adapted: bool = True) -> Floats:
        """Logits [tokens, vocab] of every position of a text."""
        return self._append(ids, self.empty(), adapted=adapted)[0]

    def empty(self) -> Cache:
        """As `runner.Runner`."""
        shape = (1, self._arch.kv_heads, 0, self._arch.head_dim)
        return [np.zeros(shape, self._type) for _ in self._layers]

    def run(self, sequences: Sequence[Sequence[int]], pasts: Sequence[Cache]) -> tuple[list[Floats], list[Cache]]:
        """As `runner.Runner`."""
        found = [self._append(ids, past) for ids, past in zip(sequences, pasts, strict=True)]
        return [logits for logits, _ in found], [cache for _, cache in found]

    def _append(self, ids: Sequence[int], past: Cache, *, adapted: bool = True) -> tuple[Floats, Cache]:
        feed: dict[str, npt.NDArray[np.generic]] = {
            contract.INPUT_IDS: np.asarray([ids], np.int64),
            contract.ATTENTION_MASK: np.ones((1, past[0].shape[2] + len(ids)), np.int64),
        }
        feed |= {contract.past_name(*layer): each for layer, each in zip(self._layers, past, strict=True)}
        options = onnxruntime.RunOptions()
        if adapted:
            options.add_active_adapter(self._adapter)
        names = [contract.LOGITS, *(contract.present_name(*layer) for layer in self._layers)]
        logits, *cache = self._session.run(names, feed, options)
        return logits[0], cache


def plan_of(base: Bundle) -> Plan:
    """How a finished bundle's matrices are stored."""
    arch = base.manifest.arch
    sizes = {"embed": (arch.hidden, arch.vocab), "lm_head": (arch.hidden, arch.vocab)}
    for linear, whole in linears(arch).items():
        sizes |= {linear: whole, **linear_parts(arch, linear)}
    return {
        name: PlannedMatrix(name, (), sizes[name][1], sizes[name][0], QuantSpec.parse(spec), "keep")
        for name, spec in base.manifest.quant.weights.items()
    }

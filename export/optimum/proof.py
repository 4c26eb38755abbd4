"""Proof that a rewritten graph computes what the original says, before it becomes a bundle.

1. The float graph of optimum's exporter gives the logits (or states) of the torch model: in one pass, and for
   decoders token by token over its cache.
2. The bytes on disk mean matrices near the original ones; and the finished graph, activations kept in float, gives
   what the float graph gives with those matrices. A wrong layout, a swapped matrix or a damaged file cannot pass.
3. As devices run it, activations rounded to INT8, it stays near: what is lost is measured against the torch model
   and recorded, with golden tokens or vectors that any device can repeat.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from edgekit.arch import ModelArch
from edgekit.errors import CheckpointError, VerificationFailed
from edgekit.manifest import Golden, GoldenText
from export import verify
from export.divergence import divergence
from export.graph.ops import WeightFile
from export.optimum.graphs import Decoder, Encoder
from export.optimum.original import Original
from export.optimum.rewrite import add_initializers
from export.optimum.sentences import Recipe
from export.optimum.sites import Floats, GraphFile, Site
from export.quantize import codec

MAX_ERROR = verify.MAX_ERROR
_STEPS = 8
_CHUNK = 12
"""The probe is read in three ways: a prompt, then a chunk of tokens after it, then tokens one by one."""

MIN_COSINE_OF_ACTIVATIONS = 0.98
"""Of a text's vector with float activations and with INT8 ones: rounding moves it by less, a wrong graph by more."""

MAX_ROUNDING: Mapping[int, float] = {4: 0.7, 8: 0.05, 32: 0.0}
"""By bits: how far a stored matrix may be from the original, relative to the original's norm. At worst (half a step in
each value of a block of 256 that has one large value) that is 0.6 for INT4 and 0.04 for INT8; ordinary weights cost
about 0.1 and 0.005; another matrix is 1.4 away."""

_GOLDEN_TEXTS = 3
_DECIMALS = 4

SENTENCES = (
    "A man is playing a guitar on a small stage.",
    "Someone performs music for an audience.",
    "The children built a castle of wet sand.",
    "Interest rates were raised for the third time this year.",
    "The central bank made borrowing more expensive again.",
    "How do I reset the password of my account?",
    "I cannot log in because I forgot my passphrase.",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "Plants make their food from sunlight.",
    "The pump stopped because its filter was clogged with sand.",
    "Replace the filter every six months, or sooner in dusty places.",
    "She missed the last train and walked home in the rain.",
    "Der Zug nach Hamburg hat heute zehn Minuten Verspätung.",
    "Le chat dort sur le canapé depuis ce matin.",
    "def add(a, b): return a + b",
    "SELECT name FROM customers WHERE city = 'Lima';",
    "Two plus two is four.",
    "Mount Everest is the highest mountain above sea level.",
    "The patient should take one tablet after each meal.",
    "Please confirm the delivery of 40 boxes by Friday.",
    "A red bicycle leans against the wall of the bakery.",
    "No!",
    "The committee decided, after a long debate, to put off the work at the library until the school is repaired.",
    "Tides are caused by the gravity of the moon and the sun.",
)
"""Ordinary sentences of our own, some of them near each other in meaning."""


@dataclass(frozen=True)
class VectorReport:
    """What verification of an encoder measured: cosines of its vectors and the torch model's, over `texts` texts."""

    error: float
    cosine: float
    least_cosine: float
    texts: int
    vectors: tuple[GoldenText, ...]
    golden: tuple[Golden, ...] = ()

    def quality(self) -> dict[str, float]:
        """As the manifest records it."""
        return {
            "verification_error": round(self.error, 7),
            "cosine": round(self.cosine, 6),
            "least_cosine": round(self.least_cosine, 6),
            "texts": float(self.texts),
        }


@dataclass(frozen=True)
class Made:
    """The files to compare: the float graph, its sites, and the finished model with its data file."""

    original: Original
    graph: GraphFile
    float_path: Path
    model_path: Path
    sites: Sequence[Site]


def of_decoder(
    made: Made,
    arch: ModelArch,
    *,
    probe: Sequence[int],
    prompts: Sequence[Sequence[int]],
    eos: Sequence[int],
    step: Callable[[str], None],
) -> verify.Report:
    """Check a decoder as the module says; arguments as `export.verify.against_reference`. Raises VerificationFailed."""
    step("comparing optimum's graph with the original")
    source = made.original.logits(probe)
    error = _relative(_over_cache(Decoder(made.float_path, arch), probe), source, "optimum's graph", "the original")
    step("comparing the stored weights with optimum's graph")
    twin = _write_twin(made)
    expected = _in_one_pass(Decoder(twin, arch), probe)
    exact = _in_one_pass(Decoder(made.model_path, arch, exact=True), probe)
    error = max(error, _relative(exact, expected, "the finished graph", "optimum's with the same weights"))
    step("measuring quality")
    decoder = Decoder(made.model_path, arch)
    found = _in_one_pass(decoder, probe)
    lost, _ = divergence(expected, found)
    if not lost <= verify.MAX_KL_OF_ACTIVATIONS:
        raise VerificationFailed(f"rounded activations cost {lost:.3f} nats, more than {verify.MAX_KL_OF_ACTIVATIONS}")
    kl, same = divergence(source, found)
    step("recording golden tokens")
    return verify.Report(error, kl, same, len(probe), verify.golden(decoder, prompts, eos))


def of_encoder(
    made: Made,
    recipe: Recipe,
    tokenize: Callable[[str], Sequence[int]],
    *,
    vocab: int,
    step: Callable[[str], None],
) -> VectorReport:
    """Check an encoder as the module says; `tokenize` gives a text's ids.

    Raises VerificationFailed, or CheckpointError for a tokenizer that is not this model's.
    """
    rows = [list(tokenize(text)) for text in SENTENCES]
    largest = max((token for row in rows for token in row), default=0)
    if largest >= vocab or not all(rows):
        raise CheckpointError(f"its tokenizer makes the id {largest}, but the model has only {vocab} tokens")
    step("comparing optimum's graph with the original")
    sources = [made.original.states(row) for row in rows]
    graph = Encoder(made.float_path)
    error = max(
        _relative(graph.states(row), source, "optimum's graph", "the original")
        for row, source in zip(rows, sources, strict=True)
    )
    step("comparing the stored weights with optimum's graph")
    twin, exact, final = (
        Encoder(_write_twin(made)),
        Encoder(made.model_path, exact=True),
        Encoder(made.model_path),
    )
    vectors, cosines = [], []
    for row, source in zip(rows, sources, strict=True):
        expected = twin.states(row)
        stored = _relative(exact.states(row), expected, "the finished graph", "optimum's with the same weights")
        error = max(error, stored)
        vectors.append(pooled(final.states(row), recipe))
        near = _cosine(vectors[-1], pooled(expected, recipe))
        if not near >= MIN_COSINE_OF_ACTIVATIONS:
            raise VerificationFailed(f"rounded activations turn a vector away: the cosine is {near:.3f}")
        cosines.append(_cosine(vectors[-1], pooled(source, recipe)))
    step("recording golden vectors")
    golden = tuple(
        GoldenText(text=text, tokens=tuple(row), vector=tuple(round(float(value), _DECIMALS) for value in vector))
        for text, row, vector in list(zip(SENTENCES, rows, vectors, strict=True))[:_GOLDEN_TEXTS]
    )
    return VectorReport(error, float(np.mean(cosines)), min(cosines), len(rows), golden)


def pooled(states: Floats, recipe: Recipe) -> Floats:
    """States [tokens, hidden] of one text to its vector, as sentence-transformers defines it."""
    vector: Floats = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[recipe.pooling]
    return vector / max(float(np.linalg.norm(vector)), 1e-12) if recipe.normalise else vector


def _in_one_pass(decoder: Decoder, ids: Sequence[int]) -> Floats:
    (logits,), _ = decoder.run([ids], [decoder.empty()])
    return logits


def _over_cache(decoder: Decoder, ids: Sequence[int]) -> Floats:
    """Logits of all ids: those of a prompt, of a chunk that follows it, and of single tokens after that."""
    steps = max(1, len(ids) - _STEPS)
    chunk = max(1, steps - _CHUNK)
    pieces, cache = [], decoder.empty()
    for part in [ids[:chunk], ids[chunk:steps], *([token] for token in ids[steps:])]:
        if part:
            (logits,), (cache,) = decoder.run([part], [cache])
            pieces.append(logits)
    return np.concatenate(pieces)


def _relative(found: Floats, expected: Floats, what: str, than: str) -> float:
    """Largest difference, relative to the largest value. Raises VerificationFailed if it is too large."""
    if not np.isfinite(expected).all():
        raise CheckpointError("what it computes is not a finite number")
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= MAX_ERROR:  # NaN is not
        raise VerificationFailed(f"{what} differs from {than} by {error:.2%}, more than {MAX_ERROR:.2%}")
    return error


def _cosine(one: Floats, other: Floats) -> float:
    lengths = float(np.linalg.norm(one.astype(np.float64)) * np.linalg.norm(other.astype(np.float64)))
    return float(one.astype(np.float64) @ other.astype(np.float64)) / lengths if lengths else 0.0


def _write_twin(made: Made) -> Path:
    """The float graph with the matrices that the finished model's bytes mean, written beside it."""
    stored = GraphFile(made.model_path)
    source = made.graph.model
    twin = onnx.GraphProto(name="twin", node=source.graph.node, input=source.graph.input, output=source.graph.output)
    path = made.float_path.with_name("twin.onnx")
    data = WeightFile(path.with_name("twin.data"))
    try:
        for site in made.sites:
            values = _stored(site, stored)
            _check_rounding(site, values, made.graph.matrix(site))
            name = f"{site.name}/twin"
            twin.initializer.append(data.append(name, values.T if site.transposed else values))
            twin.node[site.node].input[site.operand] = name
        add_initializers(twin, made.graph, data)
    finally:
        data.close()
    model = helper.make_model(twin, opset_imports=source.opset_import, ir_version=source.ir_version)
    onnx.save(model, str(path))
    return path


def _check_rounding(site: Site, values: Floats, original: Floats) -> None:
    distance, norm = float(np.linalg.norm(values - original)), float(np.linalg.norm(original))
    if not distance <= MAX_ROUNDING[site.spec.bits] * norm:  # NaN is not
        raise VerificationFailed(f"the stored matrix {site.name} is not the original's")


def _stored(site: Site, stored: GraphFile) -> Floats:
    """A site's matrix [rows, columns] as the operators read it."""
    weight = stored.named(f"{site.name}.weight")
    if site.spec.bits == 32:
        return weight.astype(np.float32, copy=False)
    packed = weight.astype(np.uint8, copy=False).reshape(site.rows, site.spec.blocks(site.columns), -1)
    scales = stored.named(f"{site.name}.scales").astype(np.float32, copy=False)
    return codec.dequantise(codec.QuantisedMatrix(site.spec, site.columns, packed, scales))

"""Differences between models of many layers: a few chunks speak for all of their kind, and the targets of an update.

The models are graphs and weights without anything that could run them: exporting so many layers would take minutes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto

from edgekit.release import codec
from edgekit.release.codec import difference
from edgekit.release.manifest import HealthFloor, Release, Requires
from export.publish import chunking, content
from export.publish.content import Named
from export.publish.deltas import make_delta, predict
from export.publish.packing import Packer, known_chunks

LAYERS = 12
KINDS = ("qkv.weight", "up.weight", "up.scales")
BYTES = 1 << 16
TOKENIZER = b"".join(b'"%d": "token %d",\n' % (n, n * n) for n in range(4000))

Weights = Mapping[str, bytes]


def weights(seed: int) -> dict[str, bytes]:
    """INT4 codes and scales in float16, by tensor."""
    found: dict[str, bytes] = {}
    for layer in range(LAYERS):
        for kind in KINDS:
            random = np.random.default_rng([seed, layer, KINDS.index(kind)])
            if kind.endswith("scales"):
                data = np.abs(random.normal(0.02, 0.005, BYTES // 2)).astype(np.float16).tobytes()
            else:
                codes = np.clip(np.rint(random.normal(8, 3, 2 * BYTES)), 0, 15).astype(np.uint8)
                data = (codes[::2] | codes[1::2] << 4).tobytes()
            found[f"layers.{layer}.{kind}"] = data
    return found


def tuned(base: Weights, share: float) -> dict[str, bytes]:
    """So much of all bytes of codes moved by one step; scales stay."""
    random = np.random.default_rng(9)

    def move(data: bytes) -> bytes:
        codes = np.frombuffer(data, np.uint8)
        steps = (random.random(codes.size) < share) * random.choice([1, 16], codes.size)
        moved: bytes = (codes ^ steps.astype(np.uint8)).tobytes()
        return moved

    return {name: data if name.endswith("scales") else move(data) for name, data in base.items()}


def publish(repository: Path, tensors: Weights, *earlier: Release, tokenizer: bytes = TOKENIZER) -> Release:
    """A release of a graph, its weights and a tokenizer."""
    folder = repository.parent / f"model-{len(earlier)}"
    folder.mkdir()
    graph, spans, at = GraphProto(name="g"), [], 0
    for name, data in tensors.items():
        made = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[len(data)])
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "model.onnx.data"), ("offset", str(at)), ("length", str(len(data)))):
            made.external_data.add(key=key, value=value)
        graph.initializer.append(made)
        spans.append((at, len(data)))
        at += len(data)
    files = {
        "model.onnx": ModelProto(ir_version=10, graph=graph).SerializeToString(),
        "model.onnx.data": b"".join(tensors.values()),
        "tokenizer.json": tokenizer,
    }
    for path, data in files.items():
        (folder / path).write_bytes(data)
    cuts = [chunking._cut_file(folder / path, path, spans if path.endswith("data") else None) for path in sorted(files)]
    places = content._store(folder, cuts, Packer(repository, known_chunks(earlier)), ("zlib", "bz2"), None)
    named = Named("model", "deep", str(len(earlier)), ())
    return content._release(named, cuts, places, len(earlier) + 1, HealthFloor(), Requires())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each difference that is counted."""
    found: list[int] = []

    def count(new: bytes, base: bytes) -> bytes:
        found.append(len(new))
        return difference(new, base)

    monkeypatch.setattr(codec, "difference", count)
    return found


def test_where_nothing_is_alike_a_few_chunks_of_each_kind_are_looked_at(repository: Path, counted: list[int]) -> None:
    """INT4 to INT8, or another model: counting every difference for nothing took as long as publishing."""
    one = publish(repository, weights(0))
    two = publish(repository, weights(1), one)
    delta = make_delta(one, None, two, None, repository)
    assert delta.differences == ()
    assert len(counted) == 4 * len(KINDS)
    found = predict(one, two, delta)
    assert found.bytes > 0.95 * found.full_bytes


@pytest.mark.parametrize("other", [(0, LAYERS // 2, LAYERS - 1), (5, 6, 7), range(LAYERS - 1)], ids=str)
def test_layers_that_are_alike_get_differences_though_others_of_their_kind_are_not(
    other: tuple[int, ...], repository: Path
) -> None:
    values, others = weights(0), weights(1)
    changed = tuned(values, 0.01) | {name: each for name, each in others.items() if int(name.split(".")[1]) in other}
    one = publish(repository, values)
    two = publish(repository, changed, one)
    delta = make_delta(one, None, two, None, repository)
    stored = {chunk.sha256: chunk.stored for _, _, chunk in two.chunks()}
    small = [each for each in delta.differences if each.stored < 0.1 * stored[each.chunk]]
    assert len(small) == 2 * (LAYERS - len(other))


UPDATES: dict[str, tuple[Callable[[Weights], Weights], bytes, float]] = {
    "a fine-tune with frozen scales": (lambda base: tuned(base, 0.05), TOKENIZER, 0.15),
    "one layer": (
        lambda base: {**base, **{name: each for name, each in tuned(base, 0.05).items() if "s.3." in name}},
        TOKENIZER,
        0.02,
    ),
    "the tokenizer alone": (dict, TOKENIZER.replace(b"token 49", b"Token 49"), 0.02),
}


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_costs_its_share_at_most(name: str, repository: Path) -> None:
    change, tokenizer, most = UPDATES[name]
    one = publish(repository, weights(0))
    two = publish(repository, change(weights(0)), one, tokenizer=tokenizer)
    delta = make_delta(one, None, two, None, repository)
    found = predict(one, two, delta if delta.differences else None)
    assert found.bytes <= most * found.full_bytes

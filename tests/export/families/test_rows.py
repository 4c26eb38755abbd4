"""Families in the engine that devices run: texts of different lengths in one batch are each as alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from device_agent.engine.graphs.session import open_prompt_graph, open_rows
from device_agent.engine.graphs.shared import OnnxRows
from edgekit import contract
from edgekit.bundle import Bundle, open_bundle
from edgekit.contract import CACHE_TYPES, CacheType
from export.job import ExportJob
from export.pipeline import export
from tests.export.exports import error_of
from tests.export.families.cases import falcon, gemma2, gemma3, gpt2, jais, mistral, phi, qwen3
from tests.export.families.parity import FOLLOWING, PROMPT, Settings
from tests.export.silent import Heard

IDS = PROMPT + FOLLOWING
CASES: dict[str, Settings] = {
    "alibi": jais.BASE,
    "alibi in a parallel block": next(case for case in falcon.CASES.values() if case.get("alibi")),
    "learned positions": next(iter(gpt2.CASES.values())),
    "softcaps and a window": next(iter(gemma2.CASES.values())),
    "two windows": next(iter(gemma3.CASES.values())),
    "a window": next(case for case in mistral.CASES.values() if case.get("sliding_window")),
    "partial rotary": next(iter(phi.CASES.values())),
    "normalised heads": next(iter(qwen3.CASES.values())),
}
TOLERANCES: dict[CacheType, float] = {"float32": 1e-5, "int8": 2e-2}


def made(settings: Settings, folder: Path, cache: CacheType) -> Bundle:
    from tests.export.families.originals import Original

    original = Original(settings, folder / "source")
    export(ExportJob(original.folder, folder / "out", "fp32", kv=cache), Heard())
    return open_bundle(folder / "out")


def alone(rows: OnnxRows, ids: Sequence[int]) -> NDArray[np.float32]:
    rows.truncate(0, 0)
    return rows.read(0, ids).copy()[0:1]


@pytest.mark.reference
@pytest.mark.parametrize("cache", CACHE_TYPES)
@pytest.mark.parametrize("name", CASES)
def test_texts_of_different_lengths_decode_together_as_alone(name: str, cache: CacheType, tmp_path: Path) -> None:
    bundle = made(CASES[name], tmp_path, cache)
    rows, single = (open_rows(bundle, threads=1) for _ in range(2))
    assert isinstance(rows, OnnxRows)
    assert isinstance(single, OnnxRows)
    texts = {0: IDS[:30], 1: IDS[3:9], 2: IDS[5:45], 4: [], 5: IDS[20:27]}
    for row, text in texts.items():
        if text:
            rows.read(row, text, keep=0)
    for token in IDS[:12]:
        batch = {row: token + row for row in (2, 0, 4, 1)}  # 3 has no text, 5 is not in the window
        for row, logits in zip(batch, rows.decode(batch), strict=True):
            texts[row] = [*texts[row], batch[row]]
            assert error_of(logits, alone(single, texts[row])[0]) <= TOLERANCES[cache], (row, len(texts[row]))
    both = rows.decode({1: 7, 5: 9})  # over the others
    for row, logits in zip((1, 5), both, strict=True):
        assert error_of(logits, alone(single, [*texts[row], {1: 7, 5: 9}[row]])[0]) <= TOLERANCES[cache]
    for row in (0, 2, 4):  # which lost nothing by it
        assert error_of(rows.decode({row: 3}), alone(single, [*texts[row], 3])) <= TOLERANCES[cache]


@pytest.mark.reference
@pytest.mark.parametrize("cache", CACHE_TYPES)
@pytest.mark.parametrize("name", ["alibi", "softcaps and a window", "partial rotary"])
def test_logits_of_guessed_tokens_are_those_of_one_step_each(name: str, cache: CacheType, tmp_path: Path) -> None:
    bundle = made(CASES[name], tmp_path, cache)
    rows = open_rows(bundle, threads=1)
    rows.read(2, IDS[:20])
    rows.restore(5, rows.snapshot(2, 20))
    together = rows.read(2, IDS[20:37], keep=17).copy()
    steps = [rows.decode({5: token})[0].copy() for token in IDS[20:37]]
    assert error_of(together, np.asarray(steps)) <= TOLERANCES[cache]


@pytest.mark.reference
@pytest.mark.parametrize("name", ["alibi", "two windows", "learned positions"])
def test_a_prompt_read_by_a_graph_without_logits_is_in_the_cache(name: str, tmp_path: Path) -> None:
    bundle = made(CASES[name], tmp_path, "float32")
    path = bundle.folder / "without-logits.onnx"
    model = onnx.load(str(bundle.path(contract.MODEL_FILE)), load_external_data=False)
    outputs = [value for value in model.graph.output if value.name != contract.LOGITS]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    inputs = [value for value in model.graph.input if value.name != contract.LOGITS_TO_KEEP]
    del model.graph.input[:]
    model.graph.input.extend(inputs)  # what is left of it is a constant
    onnx.save(model, str(path))
    rows, single = (open_rows(bundle, threads=1) for _ in range(2))
    assert isinstance(rows, OnnxRows)
    assert isinstance(single, OnnxRows)
    graph = open_prompt_graph(path, bundle, threads=1, crossover=8)
    rows.attach(graph)
    rows.read(1, IDS[:5])
    rows.read(1, IDS[5:30], keep=0)
    last = rows.read(1, IDS[30:50]).copy()
    assert error_of(last, alone(single, IDS[:50])) <= TOLERANCES["float32"]

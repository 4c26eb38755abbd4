"""Another runtime over the same folders: onnxruntime-genai opens a bundle of every family."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import contract
from edgekit.quant import Precision
from export import genai
from export.families import FAMILIES
from export.job import ExportJob
from export.pipeline import export
from tests import tiny
from tests.export.exports import Decoder, export_tiny
from tests.export.families.parity import PROMPT
from tests.export.silent import Heard

TOKENS = 16
NEVER = 319
"""An id that no tokenizer of these tests has, and that no case prefers: generation goes on to its limit."""


def test_every_type_is_of_a_family() -> None:
    assert set(genai.TYPES) <= set(FAMILIES)


@pytest.mark.genai
@pytest.mark.reference
@pytest.mark.parametrize("precision", ["int4", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_ours(
    family: str, precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    from tests.export.families.originals import Original

    cases = importlib.import_module(f"tests.export.families.cases.{family}").CASES
    source = Original(next(iter(cases.values())), tmp_path / "source").folder
    folder = tmp_path / "out"
    arch = export_tiny(source, folder, precision).arch
    assert json.loads((folder / contract.GENAI_FILE).read_text())["model"]["type"] == genai.TYPES.get(
        arch.model_type, genai.ANY
    )
    assert greedy(folder, PROMPT) == Decoder(folder, arch).greedy(PROMPT, TOKENS)


@pytest.mark.genai
def test_greedy_tokens_over_an_int8_cache_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    folder = tmp_path / "out"
    arch = export(ExportJob(tiny.write_hf_folder(tmp_path / "tiny"), folder, "fp32", kv="int8"), Heard()).arch
    decoder = Decoder(folder, arch)
    assert decoder.cache_type is np.int8
    assert greedy(folder, PROMPT) == decoder.greedy(PROMPT, TOKENS)


def greedy(folder: Path, prompt: list[int]) -> list[int]:
    """Of onnxruntime-genai, which is told of another end of text."""
    import onnxruntime_genai

    file = folder / contract.GENAI_FILE
    config: Any = json.loads(file.read_text())
    config["model"]["eos_token_id"] = [NEVER]
    tiny.write_json(file, config)
    model = onnxruntime_genai.Model(str(folder))
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + TOKENS, do_sample=False)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(prompt)
    while not generator.is_done() and len(generator.get_sequence(0)) < len(prompt) + TOKENS:
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(prompt) :]

"""The demo model through every precision, held against transformers, onnxruntime-genai and its own float bundle."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray

from device_agent import Model
from device_agent.check import verify
from device_agent.engine.records import Generation
from edgekit.chat import ChatTemplate, Message
from edgekit.quant import Precision
from export.checkpoints import open_checkpoint
from export.prompts import GOLDEN_TEXTS, PROBE_TEXT
from tests.end_to_end.conftest import Bundles, Exported
from tests.export.exports import Decoder, error_of
from tests.export.silent import SILENT

pytestmark = pytest.mark.demo

NEAR_TIE = 1.0
"""Logits. INT8 activations alone move a logit by 0.3 to 0.7 here, of a range of about 40."""

QUESTIONS = (
    "What is the capital of France? Answer in one sentence.",
    "What is the capital of Japan?",
    "How many days are in a week?",
    "What color is the sky on a clear day?",
    "What is 2 + 2?",
    "Name a fruit that is yellow.",
    "What do bees make?",
    "Who wrote Romeo and Juliet?",
    "What is the largest planet in our solar system?",
    "What is water made of?",
    "What language do people speak in Brazil?",
    "What is the opposite of hot?",
    "How many legs does a spider have?",
    "In which ocean is Hawaii?",
)
ANSWER_TOKENS = 24
GENAI_TOKENS = 48
MIN_EQUAL: Mapping[Precision, int] = {"int4": 5, "int8": 7}
"""How many of the answers must be equal to the last token, a floor under what was measured: 6 and 9 of 14. In eleven of
the float model's answers some token leads by less than 0.13 logits; with float activations INT4 has 9."""


@dataclass(frozen=True)
class Answer:
    """Greedy tokens, and the logits that chose each of them."""

    tokens: list[int]
    logits: list[NDArray[np.float32]]


def show(text: str) -> None:
    """For a reader of `pytest -s`."""
    sys.stdout.write(f"{text}\n")


def tokenizer_of(exported: Exported) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(exported.folder / "tokenizer.json"))


def encode(exported: Exported, text: str) -> list[int]:
    return list(tokenizer_of(exported).encode(text, add_special_tokens=False).ids)


def answer(decoder: Decoder, prompt: list[int], eos: tuple[int, ...]) -> Answer:
    decoder.reset()
    tokens: list[int] = []
    logits: list[NDArray[np.float32]] = []
    ids = prompt
    while len(tokens) < ANSWER_TOKENS and not (tokens and tokens[-1] in eos):
        logits.append(decoder.step(ids)[-1])
        tokens.append(int(logits[-1].argmax()))
        ids = tokens[-1:]
    return Answer(tokens, logits)


@pytest.fixture(scope="module")
def questions(bundles: Bundles) -> dict[str, list[int]]:
    exported = bundles("fp32")
    template = ChatTemplate((exported.folder / "chat_template.jinja").read_text(encoding="utf-8"))
    texts = {question: template.render([Message(role="user", content=question)]) for question in QUESTIONS}
    return {question: encode(exported, text) for question, text in texts.items()}


@pytest.fixture(scope="module")
def float_answers(bundles: Bundles, questions: dict[str, list[int]]) -> dict[str, Answer]:
    exported = bundles("fp32")
    decoder = Decoder(exported.folder, exported.manifest.arch)
    return {name: answer(decoder, ids, exported.manifest.tokens.eos) for name, ids in questions.items()}


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_plain_questions_get_the_float_model_s_answers(
    precision: Precision, bundles: Bundles, questions: dict[str, list[int]], float_answers: dict[str, Answer]
) -> None:
    """Word for word, or up to a token where the float model itself hesitates."""
    exported = bundles(precision)
    tokenizer = tokenizer_of(exported)
    decoder = Decoder(exported.folder, exported.manifest.arch)
    parted: dict[str, float] = {}
    for name, ids in questions.items():
        expected, found = float_answers[name], answer(decoder, ids, exported.manifest.tokens.eos)
        if found.tokens != expected.tokens:
            pairs = zip(expected.tokens, found.tokens, strict=False)
            at = next(i for i, (theirs, ours) in enumerate(pairs) if theirs != ours)
            parted[name] = float(expected.logits[at].max() - expected.logits[at][found.tokens[at]])
            show(f"{name} ({precision}: at token {at}, {parted[name]:.2f} logits behind)")
            show(f"  {tokenizer.decode(expected.tokens)!r}\n  {tokenizer.decode(found.tokens)!r}")
    equal = len(questions) - len(parted)
    show(f"{precision}: {equal} of {len(questions)} answers are equal")
    assert {name: margin for name, margin in parted.items() if margin >= NEAR_TIE} == {}
    assert equal >= MIN_EQUAL[precision]


@pytest.mark.parametrize("precision", ["int4", "int8", "fp32"])
def test_the_capital_of_france_is_paris(
    precision: Precision, bundles: Bundles, questions: dict[str, list[int]]
) -> None:
    exported = bundles(precision)
    found = answer(
        Decoder(exported.folder, exported.manifest.arch), questions[QUESTIONS[0]], exported.manifest.tokens.eos
    )
    assert "Paris" in tokenizer_of(exported).decode(found.tokens)


def test_the_int4_bundle_is_small_and_near_the_source(bundles: Bundles) -> None:
    manifest = bundles("int4").manifest
    assert manifest.file_bytes < 110e6
    assert manifest.quality["kl"] < 0.01
    assert manifest.quality["same_top_token"] > 0.9
    assert manifest.quality["verification_error"] < 1e-4
    assert manifest.quant.weights["layers.0.qkv"] == "int4-b32-affine"
    assert manifest.source.file.endswith(".gguf")
    assert len(manifest.golden) == len(GOLDEN_TEXTS) + 1  # and a chat
    assert any(golden.sure >= 4 for golden in manifest.golden)


@pytest.mark.parametrize("precision", ["int4", "int8", "fp32"])
def test_the_device_accepts_every_bundle(precision: Precision, bundles: Bundles) -> None:
    assert verify(bundles(precision).folder, SILENT.stage) == []


@pytest.mark.reference
def test_the_float_bundle_computes_what_transformers_computes(bundles: Bundles, demo_gguf: Path) -> None:
    from tests.export.torch_llama import TorchLlama

    with open_checkpoint(demo_gguf) as checkpoint:
        original = TorchLlama(checkpoint.config, {name: checkpoint.tensor(name) for name in checkpoint.names()})
    exported = bundles("fp32")
    decoder = Decoder(exported.folder, exported.manifest.arch)
    ids = encode(exported, PROBE_TEXT)
    error = error_of(decoder.step(ids), original.logits(ids))
    show(f"fp32 bundle against transformers: {error:.2e} of the largest logit over {len(ids)} tokens")
    assert error <= 1e-3
    prompt = encode(exported, "The old lighthouse on the hill")
    assert decoder.greedy(prompt, 64) == original.greedy(prompt, 64)


@pytest.mark.genai
@pytest.mark.parametrize("precision", ["int4", "fp32"])
def test_onnxruntime_genai_opens_the_same_folder(
    precision: Precision, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another loop over the same files: same ids for a text, same greedy tokens."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime_genai as genai

    exported = bundles(precision)
    model = genai.Model(str(exported.folder))
    tokenizer = genai.Tokenizer(model)
    ours = Model.open(exported.folder)
    for golden in exported.manifest.golden:
        text = tokenizer_of(exported).decode(list(golden.prompt), skip_special_tokens=False)
        assert tokenizer.encode(text).tolist() == list(golden.prompt)
        length = len(golden.prompt) + GENAI_TOKENS
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(max_length=length, do_sample=False)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(list(golden.prompt))
        while not generator.is_done() and len(generator.get_sequence(0)) < length:
            generator.generate_next_token()
        found = [int(token) for token in generator.get_sequence(0)][len(golden.prompt) :]
        pieces = ours.submit(Generation(prompt=golden.prompt, max_tokens=GENAI_TOKENS))
        tokens = [token for piece in pieces for token in piece.tokens]
        # It keeps the token that ends an answer to itself.
        assert found == [token for token in tokens if token not in exported.manifest.tokens.eos]
        assert tokens[: golden.sure] == list(golden.tokens[: golden.sure])
    ours.close()


def test_an_export_takes_little_memory_and_says_so(demo_gguf: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgekit", "export", str(demo_gguf), "-o", str(tmp_path / "out"), "--json"]
    result = subprocess.run(command, capture_output=True, check=True, env=dict(os.environ))
    report = json.loads(result.stdout)
    show(str(report))
    assert set(report) >= {"bundle", "bytes", "quant", "seconds", "peak_rss_bytes", "quality"}
    assert 0 < report["peak_rss_bytes"] < 1.5e9

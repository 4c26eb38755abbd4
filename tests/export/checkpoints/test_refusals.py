"""Bad sources: each is refused with one sentence that names what is wrong, and leaves no bundle."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models

from edgekit.errors import (
    CheckpointError,
    CorruptCheckpoint,
    MissingTensor,
    ShapeMismatch,
    UnexpectedTensor,
    UnknownFamily,
    UnsupportedCheckpoint,
)
from export.job import ExportJob
from export.pipeline import export
from tests import tiny
from tests.export.silent import Heard

UP = "model.layers.1.mlp.up_proj.weight"
EXTRA = "model.layers.1.mlp.extra.weight"
CODE = "import pathlib; pathlib.Path(__file__).with_name('it-ran').touch()\n"


def configured(**changed: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        facts = json.loads((folder / "config.json").read_text())
        tiny.write_json(folder / "config.json", facts | changed)

    return change


def weighted(change: Callable[[tiny.Weights], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        values = tiny.weights()
        change(values)
        tiny.write_safetensors(folder / "model.safetensors", values)

    return apply


def with_value(value: float) -> Callable[[Path], object]:
    return weighted(lambda values: values[UP].__setitem__((3, 3), value))


def _code_of_its_own(folder: Path) -> None:
    (folder / "modeling_mine.py").write_text(CODE)
    names = {"AutoConfig": "modeling_mine.MyConfig", "AutoModelForCausalLM": "modeling_mine.MyModel"}
    configured(model_type="mine", architectures=["MyModel"], auto_map=names)(folder)


def _tokenizer_of_a_larger_model(folder: Path) -> None:
    words = {"<s>": 0, "</s>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, 400)}
    made = tokenizers.Tokenizer(models.WordLevel(words | {"A": 400}, unk_token="A"))
    (folder / "tokenizer.json").write_text(made.to_str())
    (folder / "tokenizer_config.json").write_text("{}")


@dataclass(frozen=True)
class Bad:
    """A source, and what must be said of it."""

    name: str
    damage: Callable[[Path], object]
    error: type[CheckpointError]
    words: tuple[str, ...]


EVERY = (
    Bad("code of its own", _code_of_its_own, UnknownFamily, ("'mine'", "Known: ")),
    Bad("no type of model", configured(model_type=None), UnknownFamily, ("'None'",)),
    Bad("a rope that nobody knows", configured(rope_scaling={"rope_type": "magic", "factor": 2.0}),
        UnsupportedCheckpoint, ("magic",)),
    Bad("a missing tensor", weighted(lambda values: values.pop(UP)), MissingTensor, (UP,)),
    Bad("an extra tensor", weighted(lambda values: values.update({EXTRA: np.ones(2, np.float32)})),
        UnexpectedTensor, (EXTRA,)),
    Bad("another shape", weighted(lambda values: values.update({UP: np.ones((95, 64), np.float32)})),
        ShapeMismatch, (UP, "[95, 64]", "[96, 64]")),
    Bad("a weight that is NaN", with_value(np.nan), CorruptCheckpoint, (UP, "NaN")),
    Bad("a weight that is infinite", with_value(-np.inf), CorruptCheckpoint, (UP, "infinite")),
    Bad("no tokenizer", lambda folder: (folder / "tokenizer.json").unlink(),
        UnsupportedCheckpoint, ("tokenizer.json", "AutoTokenizer")),
    Bad("a tokenizer with ids that the model lacks", _tokenizer_of_a_larger_model,
        CheckpointError, ("tokenizer", "400", "320")),
    Bad("a method of quantisation that is not read", configured(quantization_config={"quant_method": "hqq"}),
        UnsupportedCheckpoint, ("'hqq'", "original checkpoint")),
)  # fmt: skip


@pytest.mark.parametrize("bad", EVERY, ids=lambda bad: bad.name)
def test_a_bad_source_is_refused_by_one_sentence_and_leaves_no_bundle(bad: Bad, tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "in" / "tiny")
    bad.damage(source)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError) as caught:
        export(ExportJob(source, tmp_path / "out" / "bundle", "int8"), Heard())
    assert type(caught.value) is bad.error
    assert all(word in str(caught.value) for word in bad.words), str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_code_in_a_folder_never_runs(tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny")
    (source / "modeling_mine.py").write_text(CODE)
    configured(auto_map={"AutoModelForCausalLM": "modeling_mine.MyModel"})(source)
    export(ExportJob(source, tmp_path / "out", "int8"), Heard())  # a known type: its own code is not needed
    assert not (source / "it-ran").exists()

"""Hugging Face folders: whole, in shards, and in every way broken."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from edgekit.errors import (
    CheckpointError,
    CheckpointNotFound,
    CorruptCheckpoint,
    MissingTensor,
    UnsupportedCheckpoint,
)
from export.checkpoints import open_checkpoint
from tests import tiny

INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00003.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Apply `change` to the object in a JSON file."""
    found = json.loads(path.read_text())
    change(found)
    tiny.write_json(path, found)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_values_equal_the_format_s_own_reader(shards: int, dtype: str, tmp_path: Path) -> None:
    folder = tiny.write_hf_folder(tmp_path / "hf", shards=shards, dtype=dtype)
    theirs: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        with safetensors.safe_open(path, framework="np") as file:
            theirs |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.names()) == set(theirs)
        for name, info in checkpoint.names().items():
            values = checkpoint.tensor(name)
            assert values.dtype == np.float32
            assert (info.shape, info.dtype) == (theirs[name].shape, dtype)
            np.testing.assert_array_equal(values, theirs[name].astype(np.float32), err_msg=name)
            assert checkpoint.blocks(name) is None


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    values = {"a": np.array([[1.0, -2.5], [3.0e38, 1.0 + 2**-7]], np.float32)}
    with open_checkpoint(tiny.write_hf_folder(tmp_path / "hf", values=values, dtype="bfloat16")) as checkpoint:
        expected = np.array([[1.0, -2.5], [np.frombuffer(b"\0\0\x62\x7f", "<f4")[0], 1.0 + 2**-7]], np.float32)
        np.testing.assert_array_equal(checkpoint.tensor("a"), expected)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
def test_transformers_opens_the_tiny_folder_with_the_same_weights(tmp_path: Path) -> None:
    import transformers

    config = tiny.Config(heads=6, kv_heads=3, head_dim=32, attention_bias=True, mlp_bias=True)
    folder = tiny.write_hf_folder(tmp_path / "hf", config, shards=2, dtype="bfloat16")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with open_checkpoint(folder) as checkpoint:
        theirs = model.state_dict()
        assert set(theirs) == set(checkpoint.names())
        for name in theirs:
            np.testing.assert_array_equal(checkpoint.tensor(name), theirs[name].float().numpy(), err_msg=name)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight"])
def test_rows_are_slices_of_the_tensor(name: str, tmp_path: Path) -> None:
    with open_checkpoint(tiny.write_hf_folder(tmp_path / "hf", dtype="float16")) as checkpoint:
        whole = checkpoint.tensor(name)
        for start, stop in [(0, 1), (3, 3), (5, 21), (len(whole) - 3, len(whole))]:
            np.testing.assert_array_equal(checkpoint.rows(name, start, stop), whole[start:stop])
        for start, stop in [(-1, 1), (2, 1), (0, len(whole) + 1)]:
            with pytest.raises(ValueError, match="rows"):
                checkpoint.rows(name, start, stop)


def test_a_file_of_gigabytes_costs_no_memory(tmp_path: Path) -> None:
    folder = tiny.write_hf_folder(tmp_path / "hf")
    rows, columns = 1 << 22, 512
    header = json.dumps({"a": {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [0, rows * columns * 2]}})
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header.encode())
        stream.truncate(8 + len(header) + rows * columns * 2)  # 4 GiB, sparse
    tracemalloc.start()
    try:
        with open_checkpoint(folder) as checkpoint:
            assert checkpoint.rows("a", rows - 10, rows).shape == (10, columns)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_facts_of_a_folder(tmp_path: Path) -> None:
    folder = tiny.write_hf_folder(tmp_path / "some-model")
    with open_checkpoint(folder) as checkpoint:
        assert (checkpoint.kind, checkpoint.file, checkpoint.licence) == ("huggingface", "some-model", None)
        assert checkpoint.config == tiny.hf_config()


def test_a_folder_of_links_opens_as_the_hub_s_cache_is_one(tmp_path: Path) -> None:
    blobs = tiny.write_hf_folder(tmp_path / "blobs", shards=2)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    with open_checkpoint(snapshot) as checkpoint:
        assert set(checkpoint.names()) == set(tiny.weights())


READMES = {
    "plain": ("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n", "apache-2.0"),
    "quoted": ("---\nlicense: 'mit'\n---\n", "mit"),
    "outside the front matter": ("---\nlanguage: en\n---\nlicense: mit\n", None),
    "no front matter": ("license: mit\n", None),
    "empty value": ("---\nlicense:\n---\n", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize(("readme", "licence"), READMES.values(), ids=READMES.keys())
def test_the_licence_is_that_of_the_readme_s_front_matter(readme: str, licence: str | None, tmp_path: Path) -> None:
    folder = tiny.write_hf_folder(tmp_path / "hf")
    (folder / "README.md").write_text(readme)
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.licence == licence


def _points_to(name: str) -> Callable[[Path], object]:
    return lambda folder: tiny.write_json(folder / INDEX, {"weight_map": {"a": name}})


def _also_in_another_shard(folder: Path) -> None:
    tiny.write_safetensors(folder / "model-00001-of-00003.safetensors", {"a": np.ones(2, np.float32)})
    tiny.write_safetensors(folder / SHARD, {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)})
    shards = {"b": SHARD, "c": "model-00001-of-00003.safetensors"}
    tiny.write_json(folder / INDEX, {"weight_map": shards})


def _pickles_only(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")


def _pickle_of_the_maker(folder: Path) -> None:
    _weights_gone(folder)
    (folder / "consolidated.00.pth").write_bytes(b"\x80\x04")


def _leftovers_only(folder: Path) -> None:
    _weights_gone(folder)
    (folder / "training_args.bin").write_bytes(b"\x80\x04")
    tiny.write_safetensors(folder / "adapter_model.safetensors", {"a": np.ones(1, np.float32)})


def _adapter_only(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")


def _weights_gone(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()


BAD: dict[str, tuple[type[CheckpointError], str, Callable[[Path], object]]] = {
    "missing shard": (CorruptCheckpoint, SHARD, lambda f: (f / SHARD).unlink()),
    "truncated shard": (
        CorruptCheckpoint, SHARD, lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes()[:-1]),
    ),
    "shard that is another file": (CorruptCheckpoint, SHARD, lambda f: (f / SHARD).write_bytes(b"version https://git")),
    "shard without a promised tensor": (
        CorruptCheckpoint, "promises", lambda f: tiny.write_safetensors(f / SHARD, {"a": np.ones(1, np.float32)}),
    ),
    "tensor in two shards": (CorruptCheckpoint, "also in", _also_in_another_shard),
    "index naming the folder above": (CorruptCheckpoint, "not a safetensors file of this folder",
                                      _points_to("../x.safetensors")),
    "index naming an absolute path": (CorruptCheckpoint, "not a safetensors", _points_to("/x.safetensors")),
    "index naming a drive": (CorruptCheckpoint, "not a safetensors", _points_to("C:x.safetensors")),
    "index naming a Windows path": (CorruptCheckpoint, "not a safetensors", _points_to("..\\x.safetensors")),
    "index naming a NUL": (CorruptCheckpoint, "not a safetensors", _points_to("a\0.safetensors")),
    "index naming a pickle": (CorruptCheckpoint, "not a safetensors", _points_to("x.bin")),
    "index naming nothing": (CorruptCheckpoint, "0 files", lambda f: tiny.write_json(f / INDEX, {"weight_map": {}})),
    "index without a map": (CorruptCheckpoint, "weight_map", lambda f: tiny.write_json(f / INDEX, {})),
    "index with a list": (CorruptCheckpoint, "weight_map", lambda f: tiny.write_json(f / INDEX, {"weight_map": []})),
    "index that is no JSON": (CorruptCheckpoint, "JSON", lambda f: (f / INDEX).write_text("{")),
    "pickles only": (UnsupportedCheckpoint, "never loaded", _pickles_only),
    "no weights": (CheckpointNotFound, "safetensors", _weights_gone),
    "no configuration": (CheckpointNotFound, r"config\.json", lambda f: (f / "config.json").unlink()),
    "configuration that is no JSON": (CorruptCheckpoint, "JSON", lambda f: (f / "config.json").write_bytes(b"\xff{")),
    "configuration that is a list": (CorruptCheckpoint, "object", lambda f: (f / "config.json").write_text("[]")),
    "configuration nested 100,000 deep": (
        CorruptCheckpoint, "JSON", lambda f: (f / "config.json").write_text('{"a":' * 100_000),
    ),
    "configuration of 20 MB": (CorruptCheckpoint, "bytes", lambda f: (f / "config.json").write_text(" " * 20_000_000)),
    "quantised by a method that is not read": (
        UnsupportedCheckpoint, "by 'bitsandbytes'.*original checkpoint",
        lambda f: rewrite(f / "config.json", lambda c: c.update(quantization_config={"quant_method": "bitsandbytes"})),
    ),
    "several files and no index": (CheckpointNotFound, "no index", lambda f: (f / INDEX).unlink()),
    "an original's own pickle": (UnsupportedCheckpoint, r"consolidated\.00\.pth.*never loaded", _pickle_of_the_maker),
    "a trainer's leftovers": (CheckpointNotFound, r"no model\.safetensors", _leftovers_only),
    "an adapter": (CheckpointNotFound, "holds an adapter.*--adapter", _adapter_only),
}  # fmt: skip


@pytest.mark.parametrize(("error", "words", "damage"), BAD.values(), ids=BAD.keys())
def test_a_broken_folder_is_refused_with_what_is_wrong(
    error: type[CheckpointError], words: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    folder = tiny.write_hf_folder(tmp_path / "hf", shards=3)
    damage(folder)
    with pytest.raises(error, match=words):
        open_checkpoint(folder)


def test_a_folder_that_holds_a_gguf_says_so(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(CheckpointNotFound, match=r"tiny\.gguf"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.safetensors"])
def test_a_file_of_weights_alone_is_refused_with_what_to_give(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(UnsupportedCheckpoint, match=name):
        open_checkpoint(tmp_path / name)


def test_nothing_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="nowhere"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    with open_checkpoint(tiny.write_hf_folder(tmp_path / "hf")) as checkpoint:
        for read in (checkpoint.tensor, checkpoint.blocks, lambda name: checkpoint.rows(name, 0, 1)):
            with pytest.raises(MissingTensor, match="bias"):
                read("bias")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    values = {"a": np.array([1, value], np.float32)}
    with open_checkpoint(tiny.write_hf_folder(tmp_path / "hf", values=values)) as checkpoint:
        assert checkpoint.rows("a", 0, 1) == [1]
        with pytest.raises(CorruptCheckpoint, match="'a'"):
            checkpoint.tensor("a")


@pytest.mark.parametrize("dtype", ["I64", "F64"])
def test_a_buffer_of_another_dtype_is_listed_and_not_read(dtype: str, tmp_path: Path) -> None:
    folder = tiny.write_hf_folder(tmp_path / "hf")
    header = json.dumps({"ids": {"dtype": dtype, "shape": [1], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.names()["ids"].dtype == dtype
        with pytest.raises(UnsupportedCheckpoint, match=dtype):
            checkpoint.tensor("ids")


def test_a_tensor_without_dimensions_is_refused(tmp_path: Path) -> None:
    values = {"scale": np.array(1.0, np.float32)}
    with (
        open_checkpoint(tiny.write_hf_folder(tmp_path / "hf", values=values)) as checkpoint,
        pytest.raises(CorruptCheckpoint, match="scale"),
    ):
        checkpoint.tensor("scale")

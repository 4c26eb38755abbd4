"""A model that llama-gguf-split has cut into several files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import CheckpointError, CheckpointNotFound, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints import open_checkpoint
from tests.export.checkpoints import raw_gguf as raw

SETTINGS = [
    raw.string("general.architecture", "llama"),
    raw.u32("llama.block_count", 1),
    raw.u32("llama.embedding_length", 8),
    raw.u32("llama.feed_forward_length", 8),
    raw.u32("llama.attention.head_count", 2),
    raw.u32("llama.context_length", 16),
    raw.f32("llama.attention.layer_norm_rms_epsilon", 1e-6),
    raw.strings("tokenizer.ggml.tokens", ["a", "b", "c"]),
]
EMBEDDING = np.arange(32, dtype=np.float32).reshape(4, 8)
NORM = np.arange(8, dtype=np.float32)


def u16(key: str, value: int) -> bytes:
    return raw.entry(key, 2, value.to_bytes(2, "little"))


def split(number: int, count: int = 3, tensors: int = 3) -> list[bytes]:
    return [
        raw.u32("split.no", number),
        raw.u32("split.count", count),
        raw.u32("split.tensors.count", tensors),
    ]


def write(folder: Path, number: int, entries: list[bytes], tensors: dict[str, np.ndarray], count: int = 3) -> Path:
    described = [raw.tensor(name, value.shape[::-1], offset=0) for name, value in tensors.items()]
    path = folder / f"model-{number:05}-of-{count:05}.gguf"
    path.write_bytes(raw.header(entries, described, data=b"".join(value.tobytes() for value in tensors.values())))
    return path


@pytest.fixture
def first(tmp_path: Path) -> Path:
    write(tmp_path, 2, split(1), {"output_norm.weight": NORM})
    write(tmp_path, 3, split(2), {"output.weight": 2 * EMBEDDING})
    return write(tmp_path, 1, [*SETTINGS, *split(0)], {"token_embd.weight": EMBEDDING})


def test_tensors_of_all_parts_are_one_model(first: Path) -> None:
    with open_checkpoint(first) as checkpoint:
        assert checkpoint.file == "model-00001-of-00003.gguf"
        assert checkpoint.config["tie_word_embeddings"] is False
        np.testing.assert_array_equal(checkpoint.tensor("model.embed_tokens.weight"), EMBEDDING)
        np.testing.assert_array_equal(checkpoint.tensor("model.norm.weight"), NORM)
        np.testing.assert_array_equal(checkpoint.rows("lm_head.weight", 1, 3), 2 * EMBEDDING[1:3])


def test_counts_may_be_of_any_width(first: Path) -> None:
    entries = [*SETTINGS, u16("split.no", 0), u16("split.count", 3), raw.u32("split.tensors.count", 3)]
    write(first.parent, 1, entries, {"token_embd.weight": EMBEDDING})
    with open_checkpoint(first) as checkpoint:
        assert len(checkpoint.names()) == 3


def test_another_part_names_the_first(first: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=r"model-00001-of-00003\.gguf"):
        open_checkpoint(first.with_name("model-00002-of-00003.gguf"))


def test_a_missing_part_is_named(first: Path) -> None:
    first.with_name("model-00003-of-00003.gguf").unlink()
    with pytest.raises(CheckpointNotFound, match=r"model-00003-of-00003\.gguf"):
        open_checkpoint(first)


BROKEN: dict[str, tuple[type[CheckpointError], Callable[[Path], object]]] = {
    "another name": (UnsupportedCheckpoint, lambda f: f.rename(f.with_name("model.gguf"))),
    "a part of another model": (
        CorruptCheckpoint,
        lambda f: write(f.parent, 2, split(1, 4), {"output_norm.weight": NORM}),
    ),
    "parts in another order": (CorruptCheckpoint, lambda f: write(f.parent, 2, split(2), {"output_norm.weight": NORM})),
    "a part that is whole by itself": (
        CorruptCheckpoint,
        lambda f: write(f.parent, 2, [], {"output_norm.weight": NORM}),
    ),
    "a tensor twice": (CorruptCheckpoint, lambda f: write(f.parent, 2, split(1), {"token_embd.weight": EMBEDDING})),
    "fewer tensors than promised": (CorruptCheckpoint, lambda f: write(f.parent, 2, split(1), {})),
    "a thousand and one parts": (
        CorruptCheckpoint,
        lambda f: write(f.parent, 1, [*SETTINGS, *split(0, 1001)], {"token_embd.weight": EMBEDDING}),
    ),
}


@pytest.mark.parametrize(("error", "damage"), BROKEN.values(), ids=BROKEN.keys())
def test_parts_that_do_not_belong_together_are_refused(
    error: type[CheckpointError], damage: Callable[[Path], object], first: Path
) -> None:
    damage(first)
    path = first if first.exists() else first.with_name("model.gguf")
    with pytest.raises(error):
        open_checkpoint(path)

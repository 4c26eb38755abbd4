"""A GGUF file of Phi-2's shape with random Q4_0 blocks: one source for llama.cpp and for `edgekit export`.

    python tests/bench/phi2.py OUT.gguf [--layers 32]

2.78 billion weights, 1.6 GB; written block by block, so that no file of floats and little memory is needed. Types are
those that llama.cpp's own tool gives a Q4_0 file: matrices Q4_0, the LM head Q6_K, norms and biases float32. The same
call writes the same bytes. Then

    edgekit export OUT.gguf -o phi2

keeps the Q4_0 blocks as they are. The text that such a model writes means nothing; its work is that of the real one.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import tiny
from tests.bench.export_speed import CONTEXT, HEADS, HIDDEN, INTERMEDIATE, VOCAB

Kind = gguf.GGMLQuantizationType
Tensor = tuple[str, tuple[int, ...], Kind]

_ROTARY = int(HIDDEN // HEADS * 0.4)
_SPREAD = 0.02 / 18.5 / 60
"""Of Q6_K: its codes spread by 18.5, its scales lie around 60."""


def tensors(layers: int) -> Iterator[Tensor]:
    """Name, shape (rows first) and type of every tensor, in the order of the file."""
    yield "token_embd.weight", (VOCAB, HIDDEN), Kind.Q4_0
    for layer in range(layers):
        at = f"blk.{layer}"
        matrices = {f"{at}.attn_{name}": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "output")}
        matrices |= {f"{at}.ffn_up": (INTERMEDIATE, HIDDEN), f"{at}.ffn_down": (HIDDEN, INTERMEDIATE)}
        yield from _norm(f"{at}.attn_norm")
        for name, shape in matrices.items():
            yield f"{name}.weight", shape, Kind.Q4_0
            yield f"{name}.bias", shape[:1], Kind.F32
    yield from _norm("output_norm")
    yield "output.weight", (VOCAB, HIDDEN), Kind.Q6_K
    yield "output.bias", (VOCAB,), Kind.F32


def _norm(name: str) -> Iterator[Tensor]:
    yield f"{name}.weight", (HIDDEN,), Kind.F32
    yield f"{name}.bias", (HIDDEN,), Kind.F32


def values(random: np.random.Generator, name: str, shape: tuple[int, ...], kind: Kind) -> NDArray[np.generic]:
    """What is stored: random blocks whose values spread by 0.02, norms of one, biases of zero."""
    if kind is Kind.F32:
        return np.full(shape, 1 if name.endswith("norm.weight") else 0, np.float32)
    values_per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    count = shape[0] * shape[1] // values_per_block
    blocks = np.frombuffer(random.bytes(count * block_bytes), np.uint8).reshape(count, block_bytes).copy()
    if kind is Kind.Q4_0:  # float16 scale, 16 bytes of codes from -8 to 7
        blocks[:, :2] = random.uniform(0.003, 0.006, (count, 1)).astype("<f2").view(np.uint8)
    else:  # Q6_K: codes from -32 to 31, 16 scales of a byte, one float16 for all
        blocks[:, 192:208] = random.integers(40, 80, (count, 16), np.int8).view(np.uint8)
        blocks[:, 208:] = np.frombuffer(np.float16(_SPREAD).tobytes(), np.uint8)
    return blocks.reshape(shape[0], -1)


def write(path: Path, layers: int) -> None:
    """Write the file: header, then one tensor after the other."""
    writer = gguf.GGUFWriter(path, "phi2")
    _describe(writer, layers)
    wanted = list(tensors(layers))
    for name, shape, kind in wanted:
        values_per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        stored = (*shape[:-1], shape[-1] // values_per_block * block_bytes)
        if kind is Kind.F32:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * shape[0])
        else:
            size = stored[0] * stored[1]
            writer.add_tensor_info(name, stored, np.dtype(np.uint8), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for name, shape, kind in wanted:
        writer.write_tensor_data(values(random, name, shape, kind))
    writer.close()


def _describe(writer: gguf.GGUFWriter, layers: int) -> None:
    """Sizes, and a tokenizer of few real tokens that is as long as the embedding."""
    writer.add_name("phi2-shape")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_block_count(layers)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_rope_dimension_count(_ROTARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    tiny.write_gguf_text(writer, VOCAB, add_bos=False)


def main() -> None:
    """Write it, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    options = parser.parse_args()
    write(options.out, options.layers)
    print(f"{options.out}: {options.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()

"""A family against its original: tiny random models, the same weights in torch and in a bundle.

Cases are settings of a config.json; they switch on every quirk that a family has.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.quant import Precision
from export import reference
from export.matrices import BundleMatrices
from export.quantize import codec
from export.quantize.plan import Plan, Recipe, plan
from tests import tiny
from tests.export.exports import Decoder, error_of, export_tiny, opened

Floats = NDArray[np.float32]
Settings = Mapping[str, object]
Refused = tuple[Settings, str]
"""Changes of a case's settings, and what the refusal must name."""

SHAPE: Settings = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "vocab_size": 320,
    "bos_token_id": tiny.IM_START,
    "eos_token_id": tiny.IM_END,
    "pad_token_id": tiny.END_OF_TEXT,
}
"""What most cases share."""

_IDS: list[int] = np.random.default_rng(7).integers(3, 320, 56).tolist()
PROMPT, FOLLOWING = _IDS[:40], _IDS[40:]


def check_float(settings: Settings, folder: Path, prompt: Sequence[int] = PROMPT) -> None:
    """A prompt, and 16 tokens one by one over the cache: logits within 1e-4 of the original's largest.

    The prompt in two pieces gives the same.
    """
    from tests.export.families.originals import Original

    original = Original(settings, folder / "source")
    expected = original.logits([*prompt, *FOLLOWING])
    decoder = Decoder(folder / "out", export_tiny(original.folder, folder / "out").arch)
    found = [decoder.step(list(prompt)), *(decoder.step([token]) for token in FOLLOWING)]
    assert error_of(np.concatenate(found), expected) <= 1e-4
    decoder.reset()
    pieces = [decoder.step(list(prompt[:17])), decoder.step(list(prompt[17:]))]
    assert error_of(np.concatenate(pieces), expected[: len(prompt)]) <= 1e-4


def check_quantised(settings: Settings, folder: Path, precision: Precision) -> None:
    """Logits are numpy's over the bundle's own weights, with activations rounded as the operator rounds them.

    An activation in the middle between two codes falls on either side by the order of a sum; what follows differs by
    a step, and by as much as rounding costs after some layers (2e-2 to 5e-2 of the norm). Where none does, they agree
    to 1e-6. So there are short prompts, a quarter of which must be free of it: which ones are, depends on the order in
    which this machine's BLAS adds (with one thread five of eight were not, with two threads one).
    """
    from tests.export.families.originals import Original

    original = Original(settings, folder / "source")
    decoder = Decoder(folder / "out", export_tiny(original.folder, folder / "out", precision).arch)
    errors = []
    with opened(original.folder) as (arch, weights):
        matrices = IntegerMatrices(folder / "out", plan(arch, Recipe(precision), weights))
        for start in range(0, len(PROMPT), 5):
            prompt = PROMPT[start : start + 5]
            expected = reference.logits(arch, matrices, prompt)
            decoder.reset()
            errors.append(float(np.linalg.norm(decoder.step(prompt) - expected) / np.linalg.norm(expected)))
    assert np.quantile(errors, 0.25) <= 1e-3
    assert max(errors) <= 0.1


class IntegerMatrices(BundleMatrices):
    """A bundle's weights times inputs that are rounded to INT8 block by block, as MatMulNBits does at level 4."""

    def __init__(self, folder: Path, planned: Plan) -> None:
        super().__init__(folder, planned)
        self._specs = {name: matrix.spec for name, matrix in planned.items()}

    def multiply(self, name: str, x: Floats) -> Floats:
        spec = self._specs[name]
        assert not spec.affine  # its block means would have to be rounded too
        return super().multiply(name, x if spec.bits == 32 else rounded(x, spec.block_size))


def rounded(x: Floats, block_size: int) -> Floats:
    """Nearest multiples of a 127th of the largest value of each block of a row."""
    blocks = codec.as_blocks(x, block_size)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    codes = np.rint(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale != 0))
    nearest: Floats = (codes * scale).reshape(len(x), -1)[:, : x.shape[1]]
    return nearest

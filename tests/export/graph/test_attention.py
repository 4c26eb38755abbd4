"""An INT8 cache under every kind of attention: nearly the float one's logits, the same however tokens are fed."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.arch import ModelArch
from export.families import FAMILIES
from export.graph import decoder
from export.layerwise import Layerwise
from export.quantize import plan as planning
from export.quantize.cache import NO_SCALES, Reach, Scales
from export.quantize.plan import Recipe
from tests.export.exports import Decoder
from tests.export.random_weights import RandomWeights, arch_from, as_weights

Floats = NDArray[np.float32]
SETTINGS = {
    f"{family}: {name}": case
    for family in FAMILIES
    for name, case in importlib.import_module(f"tests.export.families.cases.{family}").CASES.items()
}
IDS: list[int] = np.random.default_rng(7).integers(3, 320, 48).tolist()
MAX_DIFFERENCE = 0.1
"""Of the norm of all logits. Most cases have 0.01 to 0.04; most of all those whose scores are hardly scaled."""


class Models:
    """The same random model with a float cache and with an INT8 one."""

    def __init__(self, name: str, folder: Path) -> None:
        self.arch = arch_from(SETTINGS[name])
        self._weights = RandomWeights(self.arch)
        self._folder = folder
        self.scales = self._measured()
        self.floats, self.codes = self._decoder("float", NO_SCALES), self._decoder("int8", self.scales)

    def _measured(self) -> Scales:
        layerwise, reach = Layerwise(self.arch, as_weights(self._weights)), Reach(self.arch)
        stream = layerwise.embed(np.asarray([IDS]))
        for i in range(self.arch.layers):
            stream, keys, values = layerwise.run_with_cache(i, layerwise.load(i), stream)
            reach.see(i, keys, values)
        return reach.scales()

    def _decoder(self, name: str, scales: Scales) -> Decoder:
        folder = self._folder / name
        folder.mkdir()
        weights = as_weights(self._weights)
        plan = planning.plan(self.arch, Recipe("fp32"), weights)
        decoder.save(
            folder, self.arch, plan, weights, lambda each: planning.quantise(each, weights), lambda _: None, scales
        )
        return Decoder(folder, self.arch)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_int8_cache_is_nearly_a_float_one(name: str, tmp_path: Path) -> None:
    models = Models(name, tmp_path)
    expected, found = models.floats.step(IDS), models.codes.step(IDS)
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < MAX_DIFFERENCE
    check_first_layer(models.arch, models)

    models.codes.reset()
    pieces = [models.codes.step(IDS[:17]), models.codes.step(IDS[17:40])]
    pieces += [models.codes.step([token]) for token in IDS[40:]]
    np.testing.assert_allclose(np.concatenate(pieces), found, atol=1e-4 * float(np.abs(found).max()))


def check_first_layer(arch: ModelArch, models: Models) -> None:
    """What enters it is the same in both, so its codes times its scales are its keys and values to half a step."""
    for half, scale in enumerate(("layers.0.k_scale", "layers.0.v_scale")):
        exact, codes, scales = models.floats.cache[half], models.codes.cache[half], models.scales[scale]
        assert codes.dtype == np.int8
        assert codes.shape == exact.shape == (1, arch.kv_heads, len(IDS), arch.head_dim)
        lost = np.abs(codes.astype(np.float32) * scales - exact.astype(np.float32))
        assert lost.max() > 0
        assert (lost <= 0.5001 * scales).all()

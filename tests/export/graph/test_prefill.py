"""The twin that reads prompts: of every kind of model, it leaves nearly the decoder's keys and values."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.contract import CACHE_TYPES, CacheType
from edgekit.twin.codes import Reach
from edgekit.twin.expand import expand, read_layout
from export.families import FAMILIES
from export.graph import decoder, prefill
from export.layerwise import Layerwise
from export.quantize import plan as planning
from export.quantize.cache import NO_SCALES
from export.quantize.cache import Reach as CacheReach
from export.quantize.plan import Recipe
from tests.export.exports import Decoder, session
from tests.export.random_weights import RandomWeights, arch_from, as_weights

Floats = NDArray[np.float32]
SETTINGS = {
    f"{family}: {name}": case
    for family in FAMILIES
    for name, case in importlib.import_module(f"tests.export.families.cases.{family}").CASES.items()
}
IDS: list[int] = np.random.default_rng(7).integers(3, 320, 48).tolist()


class Twins:
    """A random INT4 model and its twin, weights expanded."""

    def __init__(self, arch: ModelArch, folder: Path, *, reach: Reach = 127, cache: CacheType = "float32") -> None:
        self.arch, self.folder = arch, folder
        weights = as_weights(RandomWeights(arch))
        self.plan = planning.plan(arch, Recipe("int4"), weights)
        scales = NO_SCALES if cache == "float32" else self._scales()
        decoder.save(
            folder, arch, self.plan, weights, lambda each: planning.quantise(each, weights), lambda _: None, scales
        )
        prefill.save(folder, folder / contract.PREFILL_FILE, arch, self.plan)
        self.decoder = Decoder(folder, arch)
        self.expand(reach)

    def _scales(self) -> Any:
        layerwise, reach = Layerwise(self.arch, as_weights(RandomWeights(self.arch))), CacheReach(self.arch)
        stream = layerwise.embed(np.asarray([IDS]))
        for i in range(self.arch.layers):
            stream, keys, values = layerwise.run_with_cache(i, layerwise.load(i), stream)
            reach.see(i, keys, values)
        return reach.scales()

    def expand(self, reach: Reach) -> None:
        layout = read_layout(self.folder, {name: matrix.spec.name for name, matrix in self.plan.items()})
        target = self.folder / contract.PREFILL_DATA
        expand(self.folder / contract.DATA_FILE, target, layout, reach=reach, step=lambda: None)
        assert target.stat().st_size == layout.size_bytes
        self._session = session(self.folder / contract.PREFILL_FILE)
        self.reset()

    def reset(self) -> None:
        self.decoder.reset()
        self.cache = list(self.decoder.cache)

    def read(self, ids: list[int]) -> None:
        names = [contract.past_name(i, half) for i in range(self.arch.layers) for half in contract.HALVES]
        total = self.cache[0].shape[2] + len(ids)
        feed = {contract.INPUT_IDS: np.array([ids]), contract.ATTENTION_MASK: np.ones((1, total), np.int64)}
        outputs = [name.replace("past_key_values", "present") for name in names]
        self.cache = self._session.run(outputs, feed | dict(zip(names, self.cache, strict=True)))

    def errors(self) -> list[float]:
        """Of the norm of the decoder's keys and values of each layer in turn."""
        pairs = [
            (one.astype(np.float32), other.astype(np.float32))
            for one, other in zip(self.cache, self.decoder.cache, strict=True)
        ]
        return [float(np.linalg.norm(one - other) / np.linalg.norm(other)) for one, other in pairs]


@pytest.mark.parametrize("cache", CACHE_TYPES)
@pytest.mark.parametrize("name", SETTINGS)
def test_keys_and_values_are_nearly_the_decoder_s(name: str, cache: CacheType, tmp_path: Path) -> None:
    twins = Twins(arch_from(SETTINGS[name]), tmp_path, cache=cache)
    twins.decoder.step(IDS)
    twins.read(IDS)
    whole = list(twins.cache)
    assert max(twins.errors()[:2]) < 0.1
    twins.reset()
    for piece in (IDS[:17], IDS[17:40], IDS[40:41], IDS[41:]):
        twins.read(piece)
    for one, other in zip(twins.cache, whole, strict=True):
        right = other.astype(np.float32)
        np.testing.assert_allclose(one.astype(np.float32), right, atol=1e-4 * float(np.abs(right).max()))

"""The probe asks onnxruntime for a product and believes only the numbers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent.engine.twin import probe


def test_small_codes_are_exact_everywhere() -> None:
    """64 is what every processor must multiply exactly: 255 * 64 * 2 fits into 16 bits."""
    assert probe._exact(np.full((probe._COLUMNS, probe._ROWS), 64, np.int8))
    assert probe._exact(np.full((probe._COLUMNS, probe._ROWS), -64, np.int8))
    assert probe.reach() in (64, 127)


class Saturating:
    """A session whose kernel adds pairs of products in 16 bits."""

    def __init__(self, model: bytes, *_: object, **__: object) -> None:
        self.weights = np.int8(127) if bytes([127] * 64) in model else np.int8(-127)

    def run(self, _: None, feeds: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        x = feeds["x"].astype(np.int64)
        weights = np.full((probe._COLUMNS, probe._ROWS), self.weights, np.int64)
        pairs = x[:, 0::2, None] * weights[None, 0::2] + x[:, 1::2, None] * weights[None, 1::2]
        sums = self.clip(pairs).sum(1) - 128 * weights.sum(0)
        return [sums.astype(np.float32)]

    def clip(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.clip(pairs, -(1 << 15), (1 << 15) - 1)


class Exact(Saturating):
    def clip(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        return pairs


class SaturatesBelow(Saturating):
    def clip(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.maximum(pairs, -(1 << 15))


@pytest.mark.parametrize(("kind", "reach"), [(Saturating, 64), (SaturatesBelow, 64), (Exact, 127)])
def test_saturating_products_get_smaller_codes(
    kind: type[Saturating], reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", kind)
    assert probe.reach() == reach

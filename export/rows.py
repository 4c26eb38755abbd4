"""Rows of equal length, decoded side by side: what writes calibration text and measures speed."""

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgekit import contract
from edgekit.arch import ModelArch

Ids = npt.NDArray[np.int64]


class Rows:
    """`count` rows of up to `length` tokens over one session, their cache bound in place."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        arch: ModelArch,
        count: int,
        length: int,
        cache: contract.CacheType = "float32",
    ) -> None:
        self._binding, self._session = session.io_binding(), session
        self._total = 0
        self._keep = np.asarray(1, np.int64)
        self._logits = np.empty((count, 1, arch.vocab), np.float32)
        self._mask = np.ones((count, length), np.int64)
        self._bind_input(contract.LOGITS_TO_KEEP, self._keep)
        self._bind_output(contract.LOGITS, self._logits)
        shape = (count, arch.kv_heads, length, arch.head_dim)
        self._cache = [np.zeros(shape, np.dtype(cache)) for _ in range(2 * arch.layers)]
        for i in range(arch.layers):
            for at, half in enumerate(contract.HALVES):
                self._bind_input(contract.past_name(i, half), self._cache[2 * i + at])
                self._bind_output(contract.present_name(i, half), self._cache[2 * i + at])

    def step(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Append ids [rows, new]: logits [rows, vocab] after the last."""
        self._total += ids.shape[1]
        given, mask = np.ascontiguousarray(ids), np.ascontiguousarray(self._mask[:, : self._total])
        self._bind_input(contract.INPUT_IDS, given)
        self._bind_input(contract.ATTENTION_MASK, mask)
        self._session.run_with_iobinding(self._binding)
        return self._logits[:, 0]

    def _bind_input(self, name: str, array: npt.NDArray[np.generic]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _bind_output(self, name: str, array: npt.NDArray[np.generic]) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

"""A decoder of one sequence as `Rows` of one row."""

from collections.abc import Mapping, Sequence

from device_agent.engine.generate import StepDecoder
from device_agent.engine.rows import Floats, Rows, Snapshot
from device_agent.engine.session import open_decoder
from edgekit.bundle import Bundle


class SingleRow:
    """Implements what of `Rows` a measurement of one row needs."""

    most_rows = 1
    bytes_per_token = 0

    def __init__(self, decoder: StepDecoder) -> None:
        self._decoder = decoder

    @property
    def context_tokens(self) -> int:
        """As `Rows`."""
        return self._decoder.context_tokens

    def length(self, row: int) -> int:
        """As `Rows`."""
        return self._decoder.length

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        """As `Rows`; logits of the last one whatever `keep` says."""
        return self._decoder.step(ids).reshape(1, -1)

    def decode(self, ids: Mapping[int, int]) -> Floats:
        """As `Rows`."""
        return self._decoder.step(list(ids.values())).reshape(1, -1)

    def truncate(self, row: int, length: int) -> None:
        """As `Rows`."""
        self._decoder.truncate(length)

    def snapshot(self, row: int, length: int) -> Snapshot:
        """There is no second row to copy to."""
        raise NotImplementedError

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """There is no second row to copy to."""
        raise NotImplementedError

    def shrink(self) -> None:
        """Nothing to give back."""


def open_rows(bundle: Bundle, *, threads: int, most_rows: int) -> Rows:  # noqa: ARG001 - one is all there is
    """As `open_decoder`."""
    return SingleRow(open_decoder(bundle, threads=threads))

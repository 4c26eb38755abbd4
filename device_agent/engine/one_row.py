"""The first row of a model, for who reads one text at a time."""

from collections.abc import Sequence

from device_agent.engine.rows import Floats, Rows


class OneRow:
    """Implements generate.StepDecoder."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self.rows.length(0)

    @property
    def context_tokens(self) -> int:
        """Tokens that the model can attend to."""
        return self.rows.context_tokens

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.rows.truncate(0, length)

    def step(self, ids: Sequence[int]) -> Floats:
        """Append `ids` and return the logits [vocab] after the last; valid until the next step. Raises as `read`."""
        last: Floats = self.rows.read(0, ids)[0]
        return last

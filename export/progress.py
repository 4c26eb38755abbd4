"""How far a long piece of work is."""

from typing import Protocol


class Progress(Protocol):
    """Told how far it is; the command line draws it."""

    def stage(self, title: str) -> None:
        """A new stage begins."""

    def advance(self, done: int, total: int) -> None:
        """`done` of `total` of this stage: bytes, or what else it counts."""

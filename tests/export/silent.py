"""A listener that an export can talk to."""

from dataclasses import dataclass, field


@dataclass
class Heard:
    """Implements pipeline.Progress and remembers what it was told."""

    stages: list[str] = field(default_factory=list)
    advances: list[tuple[int, int]] = field(default_factory=list)

    def stage(self, title: str) -> None:
        self.stages.append(title)

    def advance(self, done: int, total: int) -> None:
        self.advances.append((done, total))


SILENT = Heard()

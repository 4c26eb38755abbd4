"""What one rendering may use, and how large a value is."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jinja2.utils import Namespace

from edgekit.errors import TemplateError

MAX_STEPS = 300_000
"""A step is a pass of a loop, a call, 512 characters of text, or 4 values looked at: some microseconds."""

MAX_VALUE = 16 << 20
"""Weight of one value: a character weighs 1, every value ITEM more, and in a container twice that."""

MAX_MADE = 128 << 20
"""Weight of all values that a rendering makes, one after the other."""

MAX_BITS = 4096
"""Of an integer: beyond it arithmetic takes longer than a step."""

ITEM = 64
_CHARS_A_STEP = 512
_VALUES_A_STEP = 4


@dataclass(slots=True)
class Budget:
    """What is left to one rendering. Every method raises TemplateError where it does not suffice."""

    steps: int = MAX_STEPS
    weight: int = MAX_MADE

    def step(self, count: int = 1) -> None:
        """Use up `count` steps."""
        self.steps -= count
        if self.steps < 0:
            raise TemplateError(f"it takes more than {MAX_STEPS:,} steps")

    def read(self, weight: int) -> None:
        """Use up the steps of looking at so much text."""
        if weight >= _CHARS_A_STEP:
            self.step(weight // _CHARS_A_STEP)

    def make(self, weight: int) -> None:
        """Allow a new value of this weight, before it is made."""
        self.read(weight)
        self.weight -= weight
        if weight > MAX_VALUE or self.weight < 0:
            raise TemplateError("its values grow too large")

    def weigh(self, value: object) -> int:
        """A value's weight, everything within counted as often as it occurs."""
        if isinstance(value, str):
            return len(value)
        total, rest = 0, [value]
        seen = 0
        while rest:
            one = rest.pop()
            seen += 1
            total += ITEM
            if isinstance(one, str):
                total += len(one)
            elif isinstance(one, int | float | None):
                if isinstance(one, int) and one.bit_length() > MAX_BITS:
                    raise TemplateError("its numbers grow too large")
            else:
                held = _held(one)
                total += ITEM * len(held)  # so that a long list is found before it is walked
                if total > MAX_VALUE:
                    raise TemplateError("its values grow too large")
                if not isinstance(held, range):
                    rest.extend(held)
        self.step(seen // _VALUES_A_STEP)
        return total


def _held(value: object) -> Collection[object]:
    """What a container holds. jinja2's namespaces show what they hold when they are printed."""
    if isinstance(value, Namespace):
        value = getattr(value, "_Namespace__attrs")  # noqa: B009 - mypy does not know it
    if isinstance(value, Mapping):
        return (*value.keys(), *value.values())
    return value if isinstance(value, list | tuple | set | frozenset | range | bytes) else ()

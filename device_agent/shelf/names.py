"""What a request calls a model, taken apart: `[base][:adapter][@strategy]`. Pure."""

import re
from collections.abc import Iterable

from device_agent.http.services import ModelName

DEFAULT = "default"
"""Stands for the active model, as no name at all does, unless a bundle is called so."""

MOST_CHARS = 600
MOST_LISTED = 20

_PART = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}"
_NAME = re.compile(rf"(?P<base>{_PART})?(?::(?P<adapter>{_PART}))?(?:@(?P<strategy>{_PART}))?", re.ASCII)


def parse(asked: str) -> ModelName | None:
    """The parts of a name, None if it is none: names have the manifest's characters, so that `:` and `@` are free.

    Without a base it is the active model's, `DEFAULT`.
    """
    match = _NAME.fullmatch(asked) if len(asked) <= MOST_CHARS else None
    return match and ModelName(base=match["base"] or DEFAULT, adapter=match["adapter"], strategy=match["strategy"])


def listed(names: Iterable[str]) -> str:
    """Names for an error's sentence, not more than a person reads."""
    found = list(names)
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return (", ".join(found[:MOST_LISTED]) or "none") + more


def version_order(version: str) -> tuple[tuple[tuple[int, int, str], ...], bool, tuple[tuple[int, int, str], ...]]:
    """A key that sorts versions as people count: 1.9 before 1.10, 2.0-rc1 before 2.0 (semver.org, 11), dates by day.

    What follows a `+` does not count.
    """
    release, dash, before = version.partition("+")[0].partition("-")
    return _numbers(release), not dash, _numbers(before)


def _numbers(text: str) -> tuple[tuple[int, int, str], ...]:
    """Runs of digits as numbers, other runs as text, which come before numbers: `rc1` is before `1`."""
    runs = re.findall(r"[0-9]+|[A-Za-z]+", text)
    return tuple((1, int(run), "") if run.isdigit() else (0, 0, run) for run in runs)

"""How large a method's, a filter's or an operator's result may become, as tables. What is not in them is not there.

A bound takes the value and the arguments; it is an upper one, and cheap to compute.
"""

import re
import string
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edgekit.errors import TemplateError
from edgekit.sandbox.budget import ITEM, MAX_BITS, Budget

Bound = Callable[..., int]

MAX_WIDTH = 10_000
"""Of a column, an indentation, a batch: any whole number that a method or a filter is given."""

_MOST_PIECES = 4
"""Characters of memory that a character of a text may become when the text is cut into pieces."""


def _same(value: object, *_: object, **__: object) -> int:
    return len(value) if isinstance(value, str) else 0


def _pieces(value: str, *_: object, **__: object) -> int:
    return _MOST_PIECES * len(value)


def _widened(value: str, width: int = 80, *_: object, **__: object) -> int:
    return len(value) + width


def _tabs(value: str, tabsize: int = 8) -> int:
    return len(value) + value.count("\t") * tabsize


def _replaced(value: object, old: object, new: object, *_: object, **__: object) -> int:
    text = str(value)
    return len(text) + text.count(str(old)) * len(str(new))


def _indented(value: str, width: int | str = 4, *_: object, **__: object) -> int:
    return len(value) + (value.count("\n") + 1) * (len(width) if isinstance(width, str) else width)


def _joined(value: Any, d: object = "", *_: object, **__: object) -> int:
    return len(value) * len(str(d))


def _join(value: str, parts: Any) -> int:
    return len(parts) * len(value) if hasattr(parts, "__len__") else 0


def _json(*args: object, **kwargs: object) -> int:
    indent = kwargs.get("indent", args[2] if len(args) > 2 else None)
    if isinstance(indent, int) and indent > _MOST_INDENT:
        raise TemplateError(f"it indents JSON by {indent}")
    if isinstance(indent, str):
        raise TemplateError("it indents JSON by a text")
    return 0


def _summed(*args: object, **kwargs: object) -> int:
    start = kwargs.get("start", args[2] if len(args) > 2 else 0)
    if not isinstance(start, int | float):  # adding lists one by one takes the square of their number
        raise TemplateError("it sums what are no numbers")
    return 0


def _copied(value: Any, *_: object) -> int:
    return ITEM * len(value)


def _listed(value: Any) -> int:
    return ITEM * len(value) if isinstance(value, str | range) else 0


_MOST_INDENT = 16

_ALIKE = (
    "strip lstrip rstrip lower upper title capitalize casefold swapcase startswith endswith find rfind index rindex "
    "count isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle "
    "isupper removeprefix removesuffix partition rpartition"
)

_NOT_LONGER = (
    "abs capitalize e escape float int lower round safe string title trim truncate upper wordcount "
    "batch dictsort groupby items map max min reject rejectattr reverse select selectattr slice sort unique"
)

METHODS: Mapping[type, Mapping[str, Bound]] = MappingProxyType(
    {
        str: {
            **dict.fromkeys(_ALIKE.split(), _same),
            **dict.fromkeys(("split", "rsplit", "splitlines"), _pieces),
            **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _widened),
            "expandtabs": _tabs,
            "replace": _replaced,
            "join": _join,
        },
        list: dict.fromkeys(("index", "count", "copy"), _copied),
        tuple: dict.fromkeys(("index", "count"), _copied),
        dict: {**dict.fromkeys(("get", "items", "keys", "values"), _same), "copy": _copied},
        int: {"bit_length": _same},
        float: {"is_integer": _same},
    }
)
"""Methods of Python's own types, with a bound of what they return."""

GLANCES = frozenset({"attr", "count", "d", "default", "first", "last", "length"})
"""Filters that look at no more than one value, whatever they are given, and make none."""

FILTERS: Mapping[str, Bound] = MappingProxyType(
    {
        **dict.fromkeys(GLANCES, _same),
        **dict.fromkeys(_NOT_LONGER.split(), _same),
        "center": _widened,
        "format": _same,  # measured by `formatted`
        "indent": _indented,
        "join": _joined,
        "list": _listed,
        "replace": _replaced,
        "sum": _summed,
        "tojson": _json,
    }
)
"""Filters that templates find, with a bound of what they add to the weight of what they are given."""

_PERCENT = re.compile(r"%(?:\([^()]*\))?[-+ #0]*(?P<width>\*|[0-9]*)(?:\.(?P<precision>\*|[0-9]*))?")
_MOST_DIGITS = 3
_WIDEST = 2_000


def formatted(budget: Budget, form: str, arguments: object) -> int:
    """Weight of `form % arguments`. Raises TemplateError for a column of 1,000 and more."""
    places = 0
    for place in _PERCENT.finditer(form):
        places += 1
        if any(size == "*" or len(size or "") > _MOST_DIGITS for size in place.groups()):
            raise _too_wide()
    if re.search(r"%\([^)]*\(", form):  # a name with parentheses, behind which the width would not be seen
        raise _too_wide()
    return len(form) + places * (_WIDEST + budget.weigh(arguments))


def braced(budget: Budget, form: str, arguments: object) -> int:
    """Weight of `form.format(arguments)`, as `formatted`."""
    places = 0
    for _, _, spec, _ in string.Formatter().parse(form):
        places += 1
        if spec and ("{" in spec or re.search(rf"\d{{{_MOST_DIGITS + 1}}}", spec)):
            raise _too_wide()
    return len(form) + places * (_WIDEST + budget.weigh(arguments))


def _too_wide() -> TemplateError:
    return TemplateError("it formats into columns that are too wide")


def combined(budget: Budget, operator: str, left: object, right: object) -> int:
    """Weight of `left operator right`, for those of + * % ** that make something larger."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(operator, left, right)
        return 0
    if operator == "+":
        return budget.weigh(left) + budget.weigh(right)
    if operator == "*":
        times, what = (left, right) if isinstance(left, int) else (right, left)
        return budget.weigh(what) * max(times, 1) if isinstance(times, int) else 0
    if operator == "%" and isinstance(left, str):
        return formatted(budget, left, right)
    return 0


def _check_bits(operator: str, left: int, right: int) -> None:
    bits = max(left.bit_length(), 1)
    size = bits * abs(right) if operator == "**" else bits + right.bit_length()
    if size > MAX_BITS:
        raise TemplateError("its numbers grow too large")

"""A route's parameters, and the one way from a body's bytes to a struct of them."""

import difflib
import functools
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from device_agent.http.schema import limits
from edgekit.errors import InvalidRequest

_log = logging.getLogger(__name__)

LABELS: Mapping[str, type] = MappingProxyType(
    {"user": str, "safety_identifier": str, "prompt_cache_key": str, "metadata": dict}
)
"""Labels for the provider's books: any value of the type is accepted, and kept nowhere."""

Body = TypeVar("Body", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form(Generic[Body]):
    """What a route's body may have in it.

    `shape` are the supported parameters. `neutral` are those that are not, with the JSON values besides null that ask
    for nothing and are therefore accepted; `labels` those whose value means nothing here. `elsewhere` are other
    servers' names, and what to send instead.
    """

    shape: type[Body]
    neutral: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, type] = field(default_factory=lambda: MappingProxyType({}))
    elsewhere: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that may be sent."""
        return (*self.shape.__struct_fields__, *self.neutral, *self.labels)


def read(raw: bytes, form: Form[Body], *, lenient: bool = False) -> Body:
    """A body that is one JSON object, every key of it once, and only of what the form has. Raises InvalidRequest.

    `lenient` drops what the form does not have, and logs each name once, instead of refusing it.
    """
    tree = _tree(raw)
    # Names first, then values: an unknown name is a better answer than a wrong value behind it.
    for count, stray in enumerate(_strays(tree, form)):
        if not lenient:
            stray.refuse(form)
        if count < limits.LOGGED_NAMES:
            _dropped(stray.name[:100])
    try:
        return msgspec.json.decode(raw, type=form.shape)
    except msgspec.ValidationError as error:
        raise explained(str(error)) from error


# --- JSON -----------------------------------------------------------------------------------


def _tree(raw: bytes) -> dict[str, Any]:
    """The object in `raw`. Everything that JSON (RFC 8259) does not know is refused: NaN, lone surrogates, a BOM."""
    if raw.count(b"[") + raw.count(b"{") > limits.CONTAINERS:
        raise InvalidRequest(f"The request body has more than {limits.CONTAINERS:,} brackets and braces.")
    try:
        raw.decode("utf-8")  # msgspec does not look into strings that it skips
        tree = msgspec.json.decode(raw, type=dict[str, Any])
        # Numbers are looked at above; `len` keeps Python from reading one with thousands of digits again.
        json.loads(raw, object_pairs_hook=_once, parse_int=len, parse_float=len)
    except UnicodeDecodeError as error:
        raise InvalidRequest("The request body is not valid UTF-8.") from error
    except RecursionError as error:
        raise InvalidRequest("The request body is nested too deeply.") from error
    except msgspec.ValidationError as error:
        raise explained(str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
    return tree


def _once(pairs: list[tuple[str, object]]) -> None:
    """Readers differ in which of two equal keys counts, so one of them would be ignored (RFC 8259, section 4)."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidRequest(f"The key {name[:100]!r} is given twice in one object.", param=name[:100])
        seen.add(name)


# --- names ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stray:
    """Something at `path` that would be ignored: an unknown name among `known` ones, or an unsupported value."""

    path: str
    name: str
    known: tuple[str, ...] = ()
    accepted: tuple[str, ...] | None = None

    def refuse(self, form: Form[Any]) -> NoReturn:
        param = f"{self.path}{self.name}"[:200]
        if self.accepted is not None:
            choices = f": leave it out, or send {' or '.join(self.accepted)}" if self.accepted else ""
            raise InvalidRequest(f"{param!r} is not supported by this agent{choices}.", param=param)
        instead = "" if self.path else form.elsewhere.get(self.name, "")
        near = difflib.get_close_matches(self.name[:100], self.known, n=1)
        hint = f" {instead}" if instead else f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidRequest(f"Unknown parameter: {param[:100]!r}.{hint}", param=param[:100])


def _strays(tree: Mapping[str, Any], form: Form[Any]) -> Iterator[_Stray]:
    for name, value in tree.items():
        if name in form.neutral:
            # As JSON text, because comparing values would take 1 for true.
            if msgspec.json.encode(value).decode() not in {*form.neutral[name], "null"}:
                yield _Stray("", name, accepted=form.neutral[name])
        elif name in form.labels:
            _check_label(name, value, form.labels[name])
        elif name not in form.shape.__struct_fields__:
            yield _Stray("", name, known=form.names)
    known = {name: value for name, value in tree.items() if name in form.shape.__struct_fields__}
    shape: type[msgspec.Struct] = form.shape
    yield from _inner_strays(known, _type(shape), "")


def _inner_strays(value: object, kind: inspect.Type, path: str) -> Iterator[_Stray]:
    """Names inside of `value` that its type does not have."""
    if isinstance(kind, inspect.UnionType):
        for option in kind.types:
            yield from _inner_strays(value, option, path)
    elif isinstance(kind, inspect.Metadata):
        yield from _inner_strays(value, kind.type, path)
    elif isinstance(kind, inspect.ListType) and isinstance(value, list):
        if isinstance(kind.item_type, inspect.StructType | inspect.Metadata | inspect.UnionType):
            for index, item in enumerate(value):
                yield from _inner_strays(item, kind.item_type, f"{path}[{index}]")
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {known.encode_name: known.type for known in kind.fields}
        start = f"{path}." if path else ""
        for name, inner in value.items():
            if name in fields:
                yield from _inner_strays(inner, fields[name], f"{start}{name}")
            else:
                yield _Stray(start, name, known=tuple(fields))


def _check_label(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise InvalidRequest(f"{name}: expected {kind.__name__} or null.", param=name)
    if len(msgspec.json.encode(value)) > limits.LABEL_BYTES:
        raise InvalidRequest(f"{name}: longer than {limits.LABEL_BYTES:,} bytes.", param=name)


@functools.lru_cache(maxsize=1000)
def _dropped(name: str) -> None:
    """Say that `name` is ignored: once, thanks to the cache."""
    _log.info("ignored, because the agent is lenient: %r", name)


@functools.cache
def _type(shape: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(shape)


# --- values ---------------------------------------------------------------------------------

_WHERE = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>.*?)(?:\[\.\.\.\])?`$")
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(?P<name>.*?)`")


def explained(problem: str) -> InvalidRequest:
    """msgspec's sentence with its JSON path taken out and given as the parameter's name."""
    where, missing = _WHERE.search(problem), _FIELD.search(problem)
    names = [where["path"] if where else "", missing["name"] if missing else ""]
    param = ".".join(name for name in names if name) or None
    sentence = _WHERE.sub("", problem)
    return InvalidRequest(f"{param}: {sentence}." if param else f"The request body: {sentence}.", param=param)

"""The README's table of parameters, made of the forms that bodies are read with. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from device_agent.http.schema.chat import CHAT
from device_agent.http.schema.completions import COMPLETIONS
from device_agent.http.schema.embeddings import EMBEDDINGS
from device_agent.http.schema.form import Form
from device_agent.http.schema.messages import MESSAGES
from device_agent.http.schema.responses import RESPONSES

FORMS: Mapping[str, Form[Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/v1/embeddings": EMBEDDINGS,
}
REFUSED = "refused"

_KINDS: tuple[tuple[type[inspect.Type], str], ...] = (
    (inspect.BoolType, "true, false"),
    (inspect.StrType, "text"),
    (inspect.DictType, "object"),
    (inspect.StructType, "object"),
    (inspect.AnyType, "text"),
)


def table() -> str:
    """Markdown: one row for each parameter that any route knows, and what each of them does with it."""
    names = dict.fromkeys(name for form in FORMS.values() for name in form.names)
    rows = [["parameter", *(f"`{path.removeprefix('/v1/')}`" for path in FORMS)], ["---"] * (1 + len(FORMS))]
    rows += [[f"`{name}`", *(_cell(name, form) for form in FORMS.values())] for name in names]
    rows.append(["any other", *[REFUSED] * len(FORMS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(name: str, form: Form[Any]) -> str:
    if name in form.neutral:
        return "only " + " or ".join(f"`{value}`" for value in (*form.neutral[name], "null"))
    if name in form.labels:
        return "label"
    found = [known.type for known in msgspec.structs.fields(form.shape) if known.name == name]
    return _values(inspect.type_info(found[0])) if found else REFUSED


def _values(kind: inspect.Type) -> str:
    """What may be sent, in a few words."""
    if isinstance(kind, inspect.Metadata):
        title = (kind.extra_json_schema or {}).get("title")
        return title if isinstance(title, str) else _values(kind.type)
    if isinstance(kind, inspect.UnionType):
        return " or ".join(_values(option) for option in kind.types if not isinstance(option, inspect.NoneType))
    if isinstance(kind, inspect.ListType):
        return f"list of {_values(kind.item_type).replace(' or ', ', ')}" + _most(kind.max_length)
    return _single(kind)


def _single(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(map(str, kind.values))
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return _range(kind)
    word = next(word for known, word in _KINDS if isinstance(kind, known))
    return word + _most(kind.max_length) if isinstance(kind, inspect.DictType) else word


def _most(count: int | None) -> str:
    return f", up to {count:,}" if count else ""


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    """Bounds, without those that are only there for a machine's integers."""
    word = "whole number" if isinstance(kind, inspect.IntType) else "number"
    if kind.ge is not None and kind.ge > -(1 << 31) and kind.le is not None:
        return f"{kind.ge:g} to {kind.le:g}"
    if kind.gt is not None and kind.le is not None:
        return f"above {kind.gt:g}, up to {kind.le:g}"
    if kind.ge is not None and kind.ge > -(1 << 31):
        return f"{word} from {kind.ge:g}"
    return word

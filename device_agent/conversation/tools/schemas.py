"""JSON schemas of arguments: what is plainly wrong with one, found by looking at it.

Only the engine compiles schemas, where nothing can be harmed (device_agent/engine/grammars/trial.py); but it sees one
grammar for all tools, and cannot say which of them is wrong. These are the mistakes that people make
(JSON Schema 2020-12).
"""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTED = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
_LISTS = ("enum", "required", *_LISTED)

# Next to one of these, "no other properties" would mean something else.
_APPLICATORS = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties", "additionalProperties")

# JSON as models were trained to write it in calls, and nowhere room for endless white space.
SPACING: Schema = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def prepared(schema: Schema) -> Schema:
    """A schema of arguments as a grammar takes it.

    Where properties are listed there are no others: small models invent them otherwise. Keywords that llguidance does
    not know are passed over: tools are described with many that no model needs.
    """
    closed = "properties" in schema and not any(name in schema for name in _APPLICATORS)
    return {
        **{key: value for key, value in schema.items() if key != "x-guidance"},
        "type": "object",
        **({"additionalProperties": False} if closed else {}),
        "x-guidance": {**SPACING, "lenient": True},
    }


def mistake(schema: Schema) -> str:
    """What is wrong with a schema, "" if nothing can be seen. It must not be nested deeper than recursion bears."""
    return next(_mistakes(schema, schema), "")


def _mistakes(schema: object, root: Schema) -> Iterator[str]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield f"a schema is an object or a boolean, not {str(schema)[:50]}"
        return
    types = schema.get("type", [])
    for one in types if isinstance(types, list) else [types]:
        if one not in _TYPES:
            yield f"{str(one)[:50]!r} is not a type"
    for key in _LISTS:
        if not isinstance(schema.get(key, []), list):
            yield f"{key} is not a list"
    if "$ref" in schema and not _resolves(schema["$ref"], root):
        yield f"{str(schema['$ref'])[:100]!r} is not in the schema"
    for inner in _within(schema):
        yield from _mistakes(inner, root)


def _within(schema: Schema) -> Iterator[object]:
    """The schemas in a schema; what should hold some and does not is given out itself."""
    for key in _BY_NAME:
        held = schema.get(key, {})
        yield from held.values() if isinstance(held, dict) else [held]
    for key in _LISTED:
        held = schema.get(key, [])
        yield from held if isinstance(held, list) else []
    for key in _SINGLE:
        held = schema.get(key, True)
        yield from held if isinstance(held, list) else [held]  # older drafts list the items of tuples


def _resolves(reference: object, root: Schema) -> bool:
    """Whether a reference points to something in the schema (RFC 6901); by an anchor or an id is not looked at."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return False
    if reference != "#" and not reference.startswith("#/"):
        return True
    at: object = root
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list) and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        elif isinstance(at, dict) and name in at:
            at = at[name]
        else:
            return False
    return True

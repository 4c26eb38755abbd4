"""One grammar for free text and calls together, in llguidance's dialect of Lark (llguidance, docs/syntax.md)."""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from device_agent.conversation.tools.records import Syntax, TokenId
from device_agent.conversation.tools.schemas import SPACING
from device_agent.engine.grammars.guide import MAX_SOURCE_BYTES
from device_agent.engine.records import Grammar
from edgekit.errors import InvalidRequest

MAX_CALLS = 32
"""Calls of one answer: a small model that cannot stop must be stopped."""

_TEXT = r"TEXT: /(.|\n)*/"
_TEXT_NO_OBJECT = r"TEXT: /([ \t\r\n]*[^{ \t\r\n](.|\n)*)?/"
_json = functools.partial(json.dumps, ensure_ascii=False)
_ID = '", \\"id\\": \\"" /[a-zA-Z0-9]{9}/ "\\"}"'


def calls_grammar(
    syntax: Syntax,
    schemas: Mapping[str, Mapping[str, Any]],
    token_id: TokenId,
    *,
    answer: Grammar | None,
    may_speak: bool,
    several: bool,
) -> Grammar:
    """The form of an answer that may call the tools of `schemas`, one or `several` of them.

    With `may_speak` it may also be text instead, in the form of `answer`; and where that is free (None), text may come
    before the calls. As soon as a call's opening is written, the rest must be a call.

    Raises InvalidRequest if the tools' schemas together are more than the engine takes.
    """
    writer = _Writer(syntax, token_id)
    if syntax.opening:
        calls, lead = writer.calls(several=several), writer.fixed(syntax.opening)
        rules = writer.named_calls(schemas)
    else:
        calls, lead = "call", writer.silent()
        rules = _bare_calls(syntax, schemas)
    start = [f"{lead} {calls}"]
    if may_speak and answer is not None:
        start.append("answer")
        rules.append(f"answer: {_nested(answer, spaced=not syntax.opening)}")
    elif may_speak:
        start = ["TEXT", *writer.spoken(calls, lead)]
        rules += writer.text()
    source = "\n".join([f"start: {' | '.join(start)}", *rules]) + "\n"
    if len(source.encode()) > MAX_SOURCE_BYTES:
        raise InvalidRequest(
            f"tools: their parameters together have more than {MAX_SOURCE_BYTES:,} bytes.", param="tools"
        )
    return Grammar("lark", source)


class _Writer:
    """Rules for one syntax and one model's special tokens."""

    def __init__(self, syntax: Syntax, token_id: TokenId) -> None:
        self._syntax = syntax
        known = {name: token_id(name) for name in (*syntax.tokens, syntax.silent) if name}
        self._ids = {name: found for name, found in known.items() if found is not None}

    def fixed(self, text: str) -> str:
        """Terminals for a text that is given: special tokens by id, the rest in quotes."""
        parts = re.split(f"({'|'.join(map(re.escape, self._ids))})", text) if self._ids else [text]
        return " ".join(f"<[{self._ids[part]}]>" if part in self._ids else json.dumps(part) for part in parts if part)

    def silent(self) -> str:
        """A special token that may come before a call."""
        return f"{self.fixed(self._syntax.silent)}?" if self._syntax.silent in self._ids else ""

    def calls(self, *, several: bool) -> str:
        """What follows the first opening."""
        syntax = self._syntax
        again = f"{{0,{MAX_CALLS - 1}}}"
        separator, closing = self.fixed(syntax.separator), self.fixed(syntax.closing)
        if syntax.listed:
            more = f"({separator} call){again}" if several else ""
            return f'/ ?\\[/ call {more} "]" {closing}'
        more = f"({separator} {self.fixed(syntax.opening)} call {closing}){again}" if several else ""
        return f"call {closing} {more}"

    def named_calls(self, schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """A rule for any call, and two for each tool."""
        syntax = self._syntax
        tail = f"({self.fixed(syntax.tail)} | {_ID})" if syntax.with_id else self.fixed(syntax.tail)
        rules = [f"call: {' | '.join(f'call_{index}' for index in range(len(schemas)))}"]
        for index, (name, schema) in enumerate(schemas.items()):
            rules.append(f"call_{index}: {self.fixed(syntax.head + name + syntax.middle)} arguments_{index} {tail}")
            rules.append(f"arguments_{index}: %json {_json(schema)}")
        return rules

    def spoken(self, calls: str, lead: str) -> list[str]:
        """Calls with or without free text before them."""
        if not self._syntax.opening:
            return [f"{lead} {calls}"]
        if self._syntax.opening in self._ids:
            return [f"TEXT {lead} {calls}"]
        return [f"lead {calls}"]

    def text(self) -> list[str]:
        """Rules of free text; where an opening is no token of its own, text ends with its first occurrence."""
        if not self._syntax.opening:
            return [_TEXT_NO_OBJECT]
        if self._syntax.opening in self._ids:
            return [_TEXT]
        return [_TEXT, f"lead[lazy]: TEXT {self.fixed(self._syntax.opening)}"]


def _bare_calls(syntax: Syntax, schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Calls that are whole answers: JSON throughout, so that they and an answer in JSON are told apart at any point."""
    key = syntax.middle.split('"')[2]
    rules = [f"call: {' | '.join(f'call_{index}' for index in range(len(schemas)))}"]
    for index, (name, schema) in enumerate(schemas.items()):
        within = {other: value for other, value in schema.items() if other != "x-guidance"}
        whole = {
            "x-guidance": schema["x-guidance"],
            "type": "object",
            "properties": {"name": {"const": name}, key: _moved(within, f"#/properties/{key}")},
            "required": ["name", key],
            "additionalProperties": False,
        }
        rules.append(f"call_{index}: %json {_json(whole)}")
    return rules


def _moved(value: Any, root: str) -> Any:  # noqa: ANN401 - JSON
    """A schema whose references start at its own root, moved to another place."""
    if isinstance(value, dict):
        return {key: _pointer(one, root) if key == "$ref" else _moved(one, root) for key, one in value.items()}
    return [_moved(one, root) for one in value] if isinstance(value, list) else value


def _pointer(value: Any, root: str) -> Any:  # noqa: ANN401 - JSON
    return root + value[1:] if isinstance(value, str) and value.startswith("#") else _moved(value, root)


def _nested(answer: Grammar, *, spaced: bool) -> str:
    """Another grammar within one; a JSON schema `spaced` as calls are, where both begin alike."""
    if answer.kind == "regex":
        return f"/{_slashed(answer.source)}/"
    if answer.kind == "lark":
        return f"%lark {{\n{answer.source}\n}}"
    if not spaced:
        return f"%json {answer.source}"
    schema = json.loads(answer.source)
    return f"%json {_json({**schema, 'x-guidance': SPACING} if isinstance(schema, dict) else schema)}"


def _slashed(regex: str) -> str:
    """A regular expression as it stands between slashes."""
    return re.sub(r"\\.|/|\n", lambda found: {"/": r"\/", "\n": r"\n"}.get(found[0], found[0]), regex, flags=re.DOTALL)

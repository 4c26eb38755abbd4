"""From text to ids, so that nobody but the template can speak in special tokens.

A chat template writes control tokens such as <|im_start|>; so might a user's message. In the rendered
prompt both look alike, and a tokenizer would let the user open a system turn. Here control tokens
are only looked for outside of the messages and tools: those inside, names and JSON included, are encoded
as the plain text that they are. So are those that would come about where a message meets its neighbours.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import tokenizers

from edgekit.chat import ChatTemplate, Message, Tool, parsed_object
from edgekit.errors import InvalidRequest

_MARKS = tuple(chr(0xF0000 + i) for i in range(64))
"""Private characters (Unicode plane 15): one that no message contains is put inside control tokens to hide them."""

_SPELLINGS = {mark: (mark, json.dumps(mark)[1:-1], repr(mark)[1:-1]) for mark in _MARKS}
"""A mark as it is, in JSON of ASCII characters only, and in what Python prints of a container."""


class PromptEncoder:
    """Ids of chats and of plain text. `bos` is put first only where the model's files ask for it."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, template: ChatTemplate | None, *, bos: int | None) -> None:
        tokenizer.encode_special_tokens = True  # control tokens in text are text; we place the real ones by id
        self._tokenizer = tokenizer
        self._inner = _for_later_text(tokenizer)
        self._template = template
        self._bos = bos
        added = tokenizer.get_added_tokens_decoder()
        # One character cannot be hidden by a mark, so such a token is never looked for: it stays text everywhere.
        self._controls = {
            token.content: (token_id, token)
            for token_id, token in added.items()
            if token.special and len(token.content) > 1
        }
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._longest = len(longest_first[0]) if longest_first else 0
        self._beginnings = {text[:end] for text in longest_first for end in range(1, len(text))}
        self._endings = {text[start:] for text in longest_first for start in range(1, len(text))}

    def text(self, text: str) -> tuple[int, ...]:
        """Ids of plain text."""
        first = [] if self._bos is None else [self._bos]
        return (*first, *self._encode(text))

    def chat(self, messages: Sequence[Message], tools: Sequence[Tool] = (), opening: str = "") -> tuple[int, ...]:
        """Ids of a rendered chat, and of `opening`, with which the answer begins: text, as a message's is.

        Without a template, of the messages one after the other; tools are then not described. Raises TemplateError if
        the template refuses the messages.
        """
        if self._template is None:
            return self.text(self.rendered(messages) + opening)
        if not self._controls:
            return tuple(self._encode(self._template.render(messages, tools) + opening))
        mark = _unused(_texts(messages, tools, opening))
        if mark is None:  # messages with all of them: give up some rare characters, not safety
            messages = [_changed(message, _without_marks) for message in messages]
            tools = [_changed_tool(tool, _without_marks) for tool in tools]
            opening, mark = _without_marks(opening), _MARKS[0]

        def hide(text: str) -> str:
            return self._hide(text, mark)

        hidden = [_changed(message, hide) for message in messages]
        rendered = self._template.render(hidden, [_changed_tool(tool, hide) for tool in tools])
        return tuple(self._encode_rendered(rendered + hide(opening), mark))

    def rendered(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The chat as text, for people: here a control token of the template looks like one in a message.

        Raises TemplateError if the template refuses the messages.
        """
        if self._template is None:
            return "\n".join(message.content for message in messages) + "\n"
        return self._template.render(messages, tools)

    def _hide(self, content: str, mark: str) -> str:
        """`content` with a mark inside of every control token, and beside what could be a part of one at its ends."""
        hidden = self._pattern.sub(lambda match: match[0][0] + mark + match[0][1:], content)
        if any(hidden[:size] in self._endings for size in range(1, self._longest)):
            hidden = mark + hidden
        if any(hidden[-size:] in self._beginnings for size in range(1, self._longest)):
            hidden += mark
        return hidden

    def _encode_rendered(self, rendered: str, mark: str) -> list[int]:
        """Control tokens by id, what stands between them as text: a tokenizer splits there anyway.

        Some tokens swallow the spaces on their left or right (`lstrip` and `rstrip` of tokenizer.json).
        """
        for spelling in _SPELLINGS[mark][1:]:
            rendered = rendered.replace(spelling, mark)
        ids: list[int] = []
        at, swallows = 0, False
        for match in self._pattern.finditer(rendered):
            token_id, token = self._controls[match[0]]
            text = rendered[at : match.start()].replace(mark, "")
            text = text.lstrip() if swallows else text
            ids += [*self._encode(text.rstrip() if token.lstrip else text, start=at == 0), token_id]
            at, swallows = match.end(), token.rstrip
        rest = rendered[at:].replace(mark, "")
        return ids + self._encode(rest.lstrip() if swallows else rest, start=at == 0)

    def _encode(self, text: str, *, start: bool = True) -> list[int]:
        """Ids of a text, or of what follows a control token in one."""
        if not text:
            return []
        try:
            text.encode()
        except UnicodeEncodeError as error:  # a lone surrogate: Python has them, Unicode text has not
            raise InvalidRequest(
                f"The text is not Unicode: {error.reason} at {error.start}.", param="prompt"
            ) from error
        tokenizer = self._tokenizer if start else self._inner
        return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _for_later_text(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer for pieces that follow a control token.

    Some tokenizers put a space before a text, but only at its very start (Metaspace with the scheme "first").
    To them every piece that is encoded by itself would be such a start. Others are returned as they are.
    """
    if not re.search('prepend_scheme="?first', repr(tokenizer.pre_tokenizer)):  # cheaper than the JSON of everything
        return tokenizer
    description = json.loads(tokenizer.to_str())
    step = description["pre_tokenizer"]
    for one in step.get("pretokenizers", [step]):
        if one.get("prepend_scheme") == "first":
            one["prepend_scheme"] = "never"
    made = tokenizers.Tokenizer.from_str(json.dumps(description))
    made.encode_special_tokens = True
    return made


# --- the texts of messages and tools ---------------------------------------------------------


def _unused(texts: Sequence[str]) -> str | None:
    """A mark that no text contains, in any way in which a template may write it."""
    return next(
        (mark for mark in _MARKS if not any(spelling in text for spelling in _SPELLINGS[mark] for text in texts)), None
    )


def _texts(messages: Sequence[Message], tools: Sequence[Tool], opening: str) -> list[str]:
    """Every text that comes from outside."""
    found = [opening]

    def note(text: str) -> str:
        found.append(text)
        return text

    for message in messages:
        _changed(message, note)
    for tool in tools:
        _changed_tool(tool, note)
    return found


def _changed(message: Message, change: Callable[[str], str]) -> Message:
    """A message with every text in it changed."""
    return Message(
        role=change(message.role),
        content=change(message.content),
        tool_calls=tuple(
            msgspec.structs.replace(
                call, id=change(call.id), name=change(call.name), arguments=_changed_json(call.arguments, change)
            )
            for call in message.tool_calls
        ),
        tool_call_id=None if message.tool_call_id is None else change(message.tool_call_id),
        name=None if message.name is None else change(message.name),
    )


def _changed_tool(tool: Tool, change: Callable[[str], str]) -> Tool:
    return Tool(
        name=change(tool.name),
        description=change(tool.description),
        parameters=_changed_json(tool.parameters, change),
    )


def _changed_json(text: str, change: Callable[[str], str]) -> str:
    """A JSON object with every string in it changed, keys too; a text that is none, as a whole."""
    found = parsed_object(text)
    return change(text) if found is None else json.dumps(_changed_value(found, change), ensure_ascii=False)


def _changed_value(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _changed_value(one, change) for key, one in value.items()}
    return [_changed_value(one, change) for one in value] if isinstance(value, list) else value


def _without_marks(text: str) -> str:
    for mark in _MARKS:
        for spelling in _SPELLINGS[mark]:
            text = text.replace(spelling, "")
    return text

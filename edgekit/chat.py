"""Messages to prompt text, by the model's own chat template.

A template comes with a model and is untrusted: it runs in a sandbox (no attribute tricks, no mutation) on a budget of
time and memory (edgekit/sandbox), and its output is capped. The same code serves requests and evaluation, so both see
the same prompt.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.errors import CorruptBundle, TemplateError
from edgekit.sandbox.environment import MeteredEnvironment

MAX_TEMPLATE_CHARS = 256 << 10
MAX_PROMPT_CHARS = 32 << 20
MAX_JSON_DEPTH = 64

_TOOLS_IN_SYSTEM = re.compile(r"""message(?:\.tools\b|\[['"]tools['"]\])""")
"""Phi's templates look for the tools' JSON in the system message."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """What the assistant asked for: `arguments` is the text of a JSON object."""

    id: str
    name: str
    arguments: str


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call: `parameters` is the text of a JSON schema of an object."""

    name: str
    description: str = ""
    parameters: str = '{"type":"object","properties":{}}'


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn: `role` is system, user, assistant or tool.

    An assistant's turn may have `tool_calls`; a tool's has the `tool_call_id` that it answers, and the tool's `name`.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class ChatTemplate:
    """A compiled template. Raises CorruptBundle if it is not one."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        self.source = source
        if len(source) > MAX_TEMPLATE_CHARS:
            raise CorruptBundle("chat_template.jinja", f"the template has more than {MAX_TEMPLATE_CHARS} characters")
        self._environment = MeteredEnvironment()
        try:
            self._template = self._environment.compiled(source)
        except Exception as error:  # a program of someone else's: too deep for Python, a number of a million digits ...
            raise CorruptBundle("chat_template.jinja", f"not a template: {error}"[:500]) from error
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._tools_in_system = _TOOLS_IN_SYSTEM.search(source) is not None

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """Prompt text that ends where the assistant's answer begins.

        Raises TemplateError if the template refuses the messages, fails in any way, or takes more time or memory than
        edgekit/sandbox/budget.py gives it.
        """
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._pieces(messages, tools):
                size += len(piece)
                if size > MAX_PROMPT_CHARS:
                    raise TemplateError(f"it writes more than {MAX_PROMPT_CHARS} characters")
                pieces.append(piece)
        except TemplateError:
            raise
        except Exception as error:  # a template is a program of someone else's: anything may come out of it
            raise TemplateError(f"{type(error).__name__}: {error}"[:500]) from error
        return "".join(pieces)

    def _pieces(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Iterator[str]:
        turns = [_turn(message) for message in messages]
        described = [_described(tool) for tool in tools]
        if described and self._tools_in_system:
            listed = json.dumps([tool["function"] for tool in described], ensure_ascii=False)
            turns = [{**turn, "tools": listed} if turn["role"] == "system" else turn for turn in turns]
        self._environment.start()
        return self._template.generate(
            messages=turns, add_generation_prompt=True, tools=described or None, documents=None, **self._tokens
        )


def _turn(message: Message) -> dict[str, Any]:
    """A message as templates read it (transformers' documentation of chat templates); what it has not, is not there."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    return turn


def _described(tool: Tool) -> dict[str, Any]:
    parameters = parsed_object(tool.parameters)
    if parameters is None:
        raise TemplateError(f"the parameters of {tool.name[:100]} are not a JSON object")
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _arguments(text: str) -> dict[str, Any] | str:
    """Arguments of an earlier call. A model, or a client, may have written what is no JSON: then it is a text."""
    found = parsed_object(text)
    return text if found is None else found


def parsed_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, None if it is none, or more than MAX_JSON_DEPTH levels deep."""
    try:
        found = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    return found if isinstance(found, dict) and _is_shallow(found) else None


def _is_shallow(value: object) -> bool:
    """Whether recursion over a JSON value is safe; found without recursion."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        held = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [child for children in held for child in children]
        if not level:
            return True
    return False


def template_of(source: str, *, bos: int | None, eos: int, token: Callable[[int], str | None]) -> ChatTemplate:
    """A template that may write the tokens with these ids; `token` spells an id. Raises CorruptBundle."""
    return ChatTemplate(source, bos="" if bos is None else token(bos) or "", eos=token(eos) or "")


def bundle_template(bundle: Bundle, token: Callable[[int], str | None]) -> ChatTemplate | None:
    """A bundle's own template, None if it has none. Raises CorruptBundle."""
    if not bundle.has(contract.CHAT_TEMPLATE_FILE):
        return None
    source = bundle.read(contract.CHAT_TEMPLATE_FILE, limit_bytes=4 * MAX_TEMPLATE_CHARS)
    tokens = bundle.manifest.tokens
    try:
        return template_of(source.decode(), bos=tokens.bos, eos=tokens.eos[0], token=token)
    except UnicodeDecodeError as error:
        raise CorruptBundle(str(bundle.folder), f"{contract.CHAT_TEMPLATE_FILE}: {error}") from error

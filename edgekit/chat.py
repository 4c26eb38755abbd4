"""Messages to prompt text, by the model's own chat template.

A template comes with a model and is untrusted: it runs in jinja2's ImmutableSandboxedEnvironment
(no attribute tricks, no mutation), and its output is capped. The same code serves requests and
evaluation, so both see the same prompt.
"""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import jinja2
import jinja2.sandbox
import msgspec

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.errors import CorruptBundle, TemplateError

MAX_TEMPLATE_CHARS = 256 << 10
MAX_PROMPT_CHARS = 32 << 20


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
        # trim_blocks and lstrip_blocks are what template authors test against (transformers' documentation).
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise CorruptBundle("chat_template.jinja", f"not a template: {error}") from error
        self._tokens = {"bos_token": bos, "eos_token": eos}

    def render(self, messages: Sequence[Message]) -> str:
        """Prompt text that ends where the assistant's answer begins.

        Raises TemplateError if the template refuses the messages or fails in any way.
        """
        turns: list[Mapping[str, str]] = [{"role": m.role, "content": m.content} for m in messages]
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(
                messages=turns, add_generation_prompt=True, tools=None, **self._tokens
            ):
                size += len(piece)
                if size > MAX_PROMPT_CHARS:
                    raise TemplateError(f"it writes more than {MAX_PROMPT_CHARS} characters")
                pieces.append(piece)
        except TemplateError:
            raise
        except Exception as error:  # a template is a program of someone else's: anything may come out of it
            raise TemplateError(f"{type(error).__name__}: {error}"[:500]) from error
        return "".join(pieces)


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


def _raise(message: object) -> NoReturn:
    """What templates call to refuse, for instance two user turns in a row."""
    raise jinja2.TemplateError(str(message))


def _tojson(value: object, indent: int | None = None) -> str:
    """JSON as models were trained on it: jinja2's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(form: str) -> str:
    """Some templates print today's date."""
    return datetime.datetime.now().astimezone().strftime(form)  # noqa: TID251 - the template asks, here is no caller

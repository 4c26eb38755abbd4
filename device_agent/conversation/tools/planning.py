"""A request with tools to what the model is asked, how its answer is bound, and who reads it."""

import functools

from device_agent.conversation.records import ChatRequest
from device_agent.conversation.tools.check import checked_schemas
from device_agent.conversation.tools.grammar import calls_grammar
from device_agent.conversation.tools.history import retold
from device_agent.conversation.tools.reader import CallReader, PlainReader
from device_agent.conversation.tools.records import Syntax, TokenId, ToolPlan
from device_agent.conversation.tools.table import syntax_of


def plan(request: ChatRequest, *, template: str | None, token_id: TokenId) -> ToolPlan:
    """How to ask a model whose chat template is `template`.

    With the choice "none" the model hears nothing of its tools. Of "named" it hears of all, and can only call that
    one, once.

    Raises InvalidRequest, with `param` saying where, for tools that cannot be: a bad or double name, too many, a schema
    that is none; and for a `tool_choice` that is not among them.
    """
    syntax = syntax_of(template)
    schemas = checked_schemas(request.tools, request.tool_choice)
    mode = request.tool_choice.mode
    if mode == "none" or not schemas:
        return ToolPlan(
            messages=retold(request.messages, (), syntax, template).messages,
            template_tools=(),
            grammar=request.grammar,
            shown=frozenset(),
            opening="",
            reader=PlainReader,
        )
    told = retold(request.messages, request.tools, syntax, template)
    callable_now = {name: schemas[name] for name in schemas if mode != "named" or name == request.tool_choice.name}
    return ToolPlan(
        messages=told.messages,
        template_tools=told.template_tools,
        grammar=calls_grammar(
            syntax,
            callable_now,
            token_id,
            answer=request.grammar,
            may_speak=mode == "auto",
            several=request.parallel_calls and mode != "named",
        ),
        shown=_shown(syntax, token_id),
        opening="",
        reader=functools.partial(CallReader, syntax, frozenset(callable_now)),
    )


def _shown(syntax: Syntax, token_id: TokenId) -> frozenset[int]:
    """Special tokens that the reader must see."""
    found = (token_id(name) for name in syntax.tokens)
    return frozenset(one for one in found if one is not None)

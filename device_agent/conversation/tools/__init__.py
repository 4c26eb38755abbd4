"""Tools that a model may call: what it is told of them, what it may write, and what it wrote.

    plan(request, template=..., token_id=...) -> ToolPlan: messages, tools for the template, a grammar, a reader

Every family of models writes calls in its own way, and its chat template tells which (`table.py`). One grammar covers
free text and calls together; so what the reader finds is always a call of a tool that exists, with arguments that its
schema allows, unless the answer was cut short.
"""

from device_agent.conversation.tools.planning import plan
from device_agent.conversation.tools.records import ToolPlan, ToolReader

__all__ = ["ToolPlan", "ToolReader", "plan"]

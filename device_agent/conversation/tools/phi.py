"""Phi-4-mini and Granite 3: a control token, and a list of calls.

Phi's template writes tools only where it finds a system message; the wording of the one here is its model card's.
"""

from device_agent.conversation.tools.records import Syntax

PHI = Syntax(
    name="phi",
    marks=("<|tool|>",),
    opening="<|tool_call|>",
    head='{"name": "',
    middle='", "arguments": ',
    tail="}",
    closing="<|/tool_call|>",
    separator=", ",
    tokens=("<|tool_call|>", "<|/tool_call|>"),
    listed=True,
    system="You are a helpful assistant with some tools.",
)

GRANITE = Syntax(
    name="granite",
    marks=("<|tool_call|>",),
    opening="<|tool_call|>",
    head='{"name": "',
    middle='", "arguments": ',
    tail="}",
    closing="",
    separator=", ",
    tokens=("<|tool_call|>",),
    listed=True,
)

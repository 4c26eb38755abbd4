"""Mistral: a control token, and a list of calls (v3, Nemo); later the name between control tokens (v13, Ministral 3).

Source: mistral-common, and the chat templates of the models.
"""

from device_agent.conversation.tools.records import Syntax

MISTRAL = Syntax(
    name="mistral",
    marks=("[TOOL_CALLS]",),
    unless=("[ARGS]",),
    opening="[TOOL_CALLS]",
    head='{"name": "',
    middle='", "arguments": ',
    tail="}",
    closing="",
    separator=", ",
    tokens=("[TOOL_CALLS]",),
    listed=True,
    with_id=True,
)

MISTRAL_NAMED = Syntax(
    name="mistral-named",
    marks=("[TOOL_CALLS]", "[ARGS]"),
    opening="[TOOL_CALLS]",
    head="",
    middle="[ARGS]",
    tail="",
    closing="",
    separator="",
    tokens=("[TOOL_CALLS]", "[ARGS]"),
)

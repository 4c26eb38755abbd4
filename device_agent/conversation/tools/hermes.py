"""ChatML families that write calls as Nous Research's Hermes does: Qwen 2.5 and 3, Hermes, SmolLM 3, Granite 4."""

from device_agent.conversation.tools.records import Syntax

HERMES = Syntax(
    name="hermes",
    marks=("<tool_call>",),
    unless=("<function=",),  # the same mark around XML: Qwen 3 Coder
    opening="<tool_call>",
    head='\n{"name": "',
    middle='", "arguments": ',
    tail="}\n",
    closing="</tool_call>",
    separator="\n",
    tokens=("<tool_call>", "</tool_call>"),
)

"""Models whose template knows no tools (Gemma, SmolLM 2, base models): they are told in words of ours.

The calls look like Hermes's, which most models have seen.
"""

from device_agent.conversation.tools.records import Syntax

GENERIC = Syntax(
    name="generic",
    opening="<tool_call>",
    head='\n{"name": "',
    middle='", "arguments": ',
    tail="}\n",
    closing="</tool_call>",
    separator="\n",
)

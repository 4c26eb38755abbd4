"""Llama 3.1 and later: the whole answer is one JSON object (Meta's llama-models, prompt_format.md)."""

from device_agent.conversation.tools.records import Syntax

LLAMA = Syntax(
    name="llama3",
    marks=("ipython", '"parameters"'),
    opening="",
    head='{"name": "',
    middle='", "parameters": ',
    tail="}",
    closing="",
    separator="",
    silent="<|python_tag|>",
)

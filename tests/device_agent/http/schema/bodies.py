"""Bodies that are right, to be spoilt by tests."""

import json
from typing import Any

from device_agent.http.schema.chat import AskedChat, parse_chat
from device_agent.http.schema.completions import AskedCompletion, parse_completion

HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> AskedChat:
    return parse_chat(json.dumps({"model": "tiny", "messages": HELLO} | fields).encode())


def lenient_chat(**fields: Any) -> AskedChat:
    return parse_chat(json.dumps({"model": "tiny", "messages": HELLO} | fields).encode(), lenient=True)


def completion(**fields: Any) -> AskedCompletion:
    return parse_completion(json.dumps({"model": "tiny", "prompt": "Hello"} | fields).encode())


def function(name: str = "look", **fields: Any) -> dict[str, Any]:
    """A tool."""
    return {"type": "function", "function": {"name": name} | fields}


def call(call_id: str = "c1", name: str = "look", arguments: str = "{}", **fields: Any) -> dict[str, Any]:
    """A call of a tool."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}} | fields

"""The agent's door: OpenAI-compatible routes, the chat page, and the server that carries them.

    a request: server -> guard -> callers (who) -> chat (route) -> schema (bytes to record) -> visit (admit, lease)
               -> converse.start -> streaming (events) -> chat_replies (shapes) -> sse (bytes)

`schema`, `shapes`, the replies, `openapi`, `sse` and `guard` are pure. Nothing here knows a model: what is behind the
door are the protocols of services.py. Flask and waitress are imported here and nowhere else.
"""

from device_agent.http.app import create_app
from device_agent.http.server import Server
from device_agent.http.settings import HttpSettings

__all__ = ["HttpSettings", "Server", "create_app"]

"""The agent's door: OpenAI-compatible routes, the chat page, and the server that carries them.

    a request: server -> guard -> openai (route) -> schema (bytes to record) -> service.submit
               -> answering (pieces to events) -> replies (shapes) -> sse (bytes)

`schema`, `replies`, `sse` and `guard` are pure. Nothing here knows a model: it talks to a `ModelService`
(device_agent/engine/records.py). Flask and waitress are imported here and nowhere else.
"""

from device_agent.http.app import create_app
from device_agent.http.server import Server
from device_agent.http.settings import HttpSettings

__all__ = ["HttpSettings", "Server", "create_app"]

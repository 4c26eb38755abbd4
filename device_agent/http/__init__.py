"""The agent's door: the routes of three clients' dialects, the page, and the server that carries them.

    a request: server -> guard -> callers (who) -> routes/chat -> schema (bytes to record) -> visit (admit, lease)
               -> conversation.converse.start -> streaming (events) -> replies/chat (shapes, bytes)

`schema`, `replies`, `openapi` and `guard` are pure. Nothing here knows a model: what is behind the door are the
protocols of services.py. Flask and waitress are imported here and nowhere else.
"""

from device_agent.http.app import create_app
from device_agent.http.server import Server
from device_agent.http.settings import HttpSettings

__all__ = ["HttpSettings", "Server", "create_app"]

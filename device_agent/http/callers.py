"""Who sends a request: read from its headers before any route runs, and asked by the routes.

Every route asks for a caller unless its rule is in `OPEN`, so that a new one is closed until somebody opens it. A
route then says `require("infer")` or `require("admin")` in its first line and takes `caller()` along.
"""

from flask import Flask, g, request

from device_agent.http.services import Caller, Gate, Scope
from edgekit.errors import Forbidden, Unauthorised

OPEN = frozenset({"/", "/web/<name>", "/health", "/health/live", "/health/ready", "/openapi.json"})
"""Rules, as Flask writes them, that anybody may ask."""

MOST_CREDENTIAL_CHARS = 512


def install(app: Flask, gate: Gate) -> None:
    """Let `gate` say before each request who it comes from."""

    @app.before_request
    def identify() -> None:
        rule = request.url_rule
        if rule is not None and rule.rule not in OPEN:  # no rule: there is nothing here, whoever asks
            g.caller = gate.identify(credential())


def caller() -> Caller:
    """Who sent the request that is being served. Raises Unauthorised where nobody was identified."""
    found = g.get("caller")
    if not isinstance(found, Caller):
        raise Unauthorised("This route needs a key.")
    return found


def require(scope: Scope) -> Caller:
    """The caller, who has this scope. Raises Forbidden, or what `caller` raises."""
    asking = caller()
    if scope not in asking.scopes:
        raise Forbidden(f"This key does not have the scope {scope!r}, which this route needs.")
    return asking


def credential() -> str | None:
    """The key that came along: OpenAI's header, or the one of Anthropic's SDK. Raises Unauthorised for no key's form.

    Another scheme than Bearer is none of ours, and as good as no key (RFC 9110, section 11.4).
    """
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    found = sent.strip() if scheme.lower() == "bearer" else request.headers.get("X-Api-Key", "").strip()
    if len(found) > MOST_CREDENTIAL_CHARS:
        raise Unauthorised("That is too long for a key.")
    return found or None

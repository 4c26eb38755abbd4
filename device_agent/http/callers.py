"""Who sends a request: read from its headers before any route runs, and held against what the route asks for.

`SCOPES` says for each route who may ask it. One that is not in the table asks for `admin`, so that a new one is closed
until somebody opens it.
"""

import contextlib
import ipaddress
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from flask import Flask, Response, g, request

from device_agent.http.services import Caller, Gate, Scope, Standing
from edgekit.errors import Forbidden, Unauthorised

Access = Literal["open", "open here", "infer", "admin"]

SCOPES: Mapping[str, Access] = MappingProxyType(
    {
        "/": "open",
        "/web/<name>": "open",
        "/health": "open",
        "/health/live": "open",
        "/health/ready": "open",
        "/openapi.json": "open",
        "/metrics": "open here",
        "/models": "infer",
        "/models/<path:name>": "infer",
        "/chat/completions": "infer",
        "/completions": "infer",
        "/embeddings": "infer",
        "/responses": "infer",
        "/messages": "infer",
        "/messages/count_tokens": "infer",
        "/tokenize": "infer",
        "/detokenize": "infer",
        "/apply-template": "infer",
        "/usage": "infer",
        "/usage.csv": "infer",
        "/edgekit/models": "infer",
        "/edgekit/device": "infer",
    }
)
"""Who may ask a rule, as Flask writes it and without its `/v1`: everybody, everybody on this machine (others need
`infer`), or keys with a scope. All others: `admin`."""

MOST_CREDENTIAL_CHARS = 512
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")


def install(app: Flask, gate: Gate) -> None:
    """Let `gate` say before each request who it comes from, and refuse those who may not ask this route."""

    @app.before_request
    def identify() -> None:
        rule = request.url_rule
        if rule is None:  # there is nothing here, whoever asks
            return
        wanted, local = access(rule.rule), is_local()
        if wanted == "open" or (wanted == "open here" and local):
            return
        g.caller = gate.identify(credential(), local=local)
        require("admin" if wanted == "admin" else "infer")

    @app.after_request
    def tell_limits(response: Response) -> Response:
        found = g.get("caller")
        if isinstance(found, Caller) and found.key and request.method == "POST":
            with contextlib.suppress(Unauthorised):  # the key has gone since; the answer stands
                response.headers.extend(limit_headers(gate.standing(found)))
        return response


def access(rule: str) -> Access:
    """What a route asks for."""
    return SCOPES.get(rule.removeprefix("/v1") or "/", "admin")


def is_local() -> bool:
    """Whether a program on this machine asks: by its address, unless a proxy says that it asks for somebody else."""
    if any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ipaddress.ip_address((request.remote_addr or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, of a socket that takes both
    return bool((mapped or address).is_loopback)


def caller() -> Caller:
    """Who sent the request that is being served. Raises Unauthorised where nobody was identified."""
    found = g.get("caller")
    if not isinstance(found, Caller):
        raise Unauthorised("This route needs a key.")
    return found


def require(scope: Scope) -> Caller:
    """The caller, who has this scope. Raises Unauthorised for one without any key, Forbidden for the wrong key."""
    asking = caller()
    if scope not in asking.scopes:
        if not asking.key:
            raise Unauthorised(f"This route needs a key with the scope {scope!r}, or the admin token.")
        raise Forbidden(f"This key does not have the scope {scope!r}, which this route needs.")
    return asking


def credential() -> str | None:
    """The key that came along: OpenAI's header, or the one of Anthropic's SDK. Raises Unauthorised for no key's form.

    Another scheme than Bearer is none of ours, and as good as no key (RFC 9110, section 11.4).
    """
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    found = sent.strip() if scheme.lower() == "bearer" else ""
    found = found or request.headers.get("X-Api-Key", "").strip()
    if len(found) > MOST_CREDENTIAL_CHARS:
        raise Unauthorised("That is too long for a key.")
    return found or None


def limit_headers(standing: Standing) -> dict[str, str]:
    """What is left of a key's quotas, in the headers of OpenAI's API (its guide on rate limits)."""
    found: dict[str, str] = {}
    if standing.requests is not None:
        found |= _limit("Requests", standing.requests, standing.requests_left, standing.requests_reset_s)
    if standing.tokens is not None:
        found |= _limit("Tokens", standing.tokens, standing.tokens_left, standing.tokens_reset_s)
    return found


def _limit(what: str, limit: int, left: int, reset_s: float) -> dict[str, str]:
    return {
        f"X-RateLimit-Limit-{what}": str(limit),
        f"X-RateLimit-Remaining-{what}": str(left),
        f"X-RateLimit-Reset-{what}": f"{math.ceil(reset_s)}s",
    }

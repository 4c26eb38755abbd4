"""The API as an OpenAPI 3.1 document (spec.openapis.org/oas/v3.1.0), made of the structs that the routes use. Pure.

A room of routes has a table `ROUTES: tuple[Route, ...]` beside its function `routes(...)`, and app.py gives all tables
to `document`. One entry for each method and path, written as in the document ("/v1/edgekit/models/{id}"):

    ROUTES = (
        Route(method="get", path="/v1/models", summary="...", scope="infer", reply=ModelList),
        Route(method="delete", path="/v1/edgekit/keys/{id}", summary="...", scope="admin", reply=KeyReply),
    )

`request` is a `Form` (schema/form.py); `reply` is a msgspec.Struct, or the media type of something that is not JSON. A
room that builds its replies as dicts needs a struct for the document only. Every path parameter is a string. A test
holds the tables against the routes that Flask knows, both ways.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from device_agent.http.replies.shapes import ErrorReply
from device_agent.http.schema.form import Form
from device_agent.http.services import Scope

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"
_TYPES: Mapping[type, str] = {str: "string", dict: "object"}

REFUSALS: Mapping[int, str] = {
    400: "The request is wrong; `param` names the parameter.",
    401: "The key is wrong, or one is needed.",
    403: "The Host, the Origin or the key's scope does not allow this.",
    404: "There is no such model.",
    405: "This path has other methods.",
    409: "This cannot be done now; the message says why.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    429: "A quota is used up; Retry-After says when to come back.",
    500: "An internal error, described in the agent's log.",
    503: "The agent is busy, loads a model, or stops; Retry-After says when to come back.",
}
ALWAYS = (403, 405, 500)
"""Statuses of every route."""
WITH_SCOPE = (401, 429, 503)
WITH_BODY = (400, 413, 415)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parameter of the query string; `schema` is JSON schema."""

    name: str
    summary: str
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. `scope` None is open to anybody.

    `events` is what a stream's events are, for a route that streams if it is asked to. `refusals` are statuses besides
    those that follow from the other fields.
    """

    method: Literal["get", "post", "delete"]
    path: str
    summary: str
    scope: Scope | None
    reply: type[msgspec.Struct] | str
    request: Form[Any] | None = None
    events: type[msgspec.Struct] | None = None
    query: tuple[Query, ...] = ()
    refusals: tuple[int, ...] = ()


def document(routes: Sequence[Route], *, version: str) -> Json:
    """The whole document of an agent of this version."""
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgekit agent",
            "version": version,
            "description": "Paths below /v1 are served without it too, unless they begin with /v1/edgekit.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def path_of(rule: str) -> str:
    """A rule of Flask's as the document writes it."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _operation(route: Route) -> Json:
    said: Json = {
        "operationId": f"{route.method}_{re.sub(r'[^a-z0-9]+', '_', route.path.strip('/').lower()).strip('_')}",
        "summary": route.summary,
        "parameters": [*_path_parameters(route.path), *map(_query_parameter, route.query)],
        "responses": {"200": _success(route)} | {str(status): _refusal(status) for status in _statuses(route)},
        # Inference is open on loopback unless the agent was told otherwise, so that a key is optional.
        "security": [] if route.scope is None else [{"key": []}, {}] if route.scope == "infer" else [{"key": []}],
    }
    if route.request is not None:
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(route.request.shape)}}}
    return said


def _statuses(route: Route) -> list[int]:
    found = {*ALWAYS, *route.refusals}
    found |= set(WITH_SCOPE) if route.scope else set()
    found |= set(WITH_BODY) if route.request else set()
    found |= {400} if route.query else set()
    found |= {404} if "{" in route.path or route.request else set()
    return sorted(found)


def _success(route: Route) -> Json:
    if isinstance(route.reply, str):
        return {"description": "Success.", "content": {route.reply: {"schema": {"type": "string"}}}}
    content: Json = {"application/json": {"schema": _ref(route.reply)}}
    if route.events is not None:
        content["text/event-stream"] = {"schema": {"type": "string"}, "x-events": _ref(route.events)}
    return {"description": "Success.", "content": content}


def _refusal(status: int) -> Json:
    said: Json = {"description": REFUSALS[status], "content": {"application/json": {"schema": _ref(ErrorReply)}}}
    if status in (429, 503):
        said["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
    return said


def _path_parameters(path: str) -> Iterable[Json]:
    for name in re.findall(r"\{(\w+)\}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(query: Query) -> Json:
    return {"name": query.name, "in": "query", "description": query.summary, "schema": dict(query.schema)}


def _ref(shape: type[msgspec.Struct]) -> Json:
    return {"$ref": _REF.format(name=shape.__name__)}


# --- schemas --------------------------------------------------------------------------------


def _schemas(routes: Sequence[Route]) -> Json:
    forms = {route.request.shape: route.request for route in routes if route.request is not None}
    replies = [kind for route in routes for kind in (route.reply, route.events) if isinstance(kind, type)]
    _, sent = msgspec.json.schema_components(list(forms), ref_template=_REF)
    _, answered = msgspec.json.schema_components([ErrorReply, *replies], ref_template=_REF)
    for schema in sent.values():
        schema["additionalProperties"] = False  # an unknown name is refused, however deep it is
    for shape, form in forms.items():
        sent[shape.__name__].setdefault("properties", {}).update(_further(form))
    return answered | sent


def _further(form: Form[Any]) -> Json:
    """Parameters that are accepted without being supported."""
    neutral = {
        name: {"enum": [*(msgspec.json.decode(value) for value in values), None]}
        for name, values in form.neutral.items()
    }
    return neutral | {name: {"type": [_TYPES[kind], "null"]} for name, kind in form.labels.items()}

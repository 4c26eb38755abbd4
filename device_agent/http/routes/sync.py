"""/v1/edgekit/sync, for admins: what this device runs and is offered, and what an operator wishes done about it.

Wishes are answered at once with how things are; what becomes of them is told by the next GET.
"""

from flask import Blueprint, Response

from device_agent.http.bodies import as_json, json_body
from device_agent.http.callers import require
from device_agent.http.openapi import Route
from device_agent.http.replies.sync import SyncReply
from device_agent.http.schema.form import read
from device_agent.http.schema.sync import CHANNEL, PIN
from device_agent.http.services import Services, Sync
from device_agent.http.settings import HttpSettings
from edgekit.errors import RouteError

_PATH = "/v1/edgekit/sync"
_REFUSALS = (404, 409)
ROUTES = (
    Route(
        method="get",
        path=_PATH,
        summary="What this device runs, what is offered, and how an update goes on.",
        scope="admin",
        reply=SyncReply,
        refusals=(404,),
    ),
    Route(
        method="post",
        path=f"{_PATH}/check",
        summary="Look for updates, and install nothing.",
        scope="admin",
        reply=SyncReply,
        refusals=_REFUSALS,
    ),
    Route(
        method="post",
        path=f"{_PATH}/update",
        summary="Look for updates, and install them, whatever the schedule says.",
        scope="admin",
        reply=SyncReply,
        refusals=_REFUSALS,
    ),
    Route(
        method="post",
        path=f"{_PATH}/rollback",
        summary="Go back to the release before.",
        scope="admin",
        request=CHANNEL,
        reply=SyncReply,
        refusals=_REFUSALS,
    ),
    Route(
        method="post",
        path=f"{_PATH}/pin",
        summary="Stay on a release, whatever the channel says.",
        scope="admin",
        request=PIN,
        reply=SyncReply,
        refusals=_REFUSALS,
    ),
    Route(
        method="post",
        path=f"{_PATH}/unpin",
        summary="Follow the channel again.",
        scope="admin",
        request=CHANNEL,
        reply=SyncReply,
        refusals=_REFUSALS,
    ),
)


def routes(services: Services, settings: HttpSettings) -> Blueprint:
    """A blueprint to be mounted at `/` and at `/v1`."""
    blueprint = Blueprint("sync", __name__)

    def link() -> Sync:
        require("admin")
        if services.sync is None:
            raise RouteError("This agent does not update anything.")
        return services.sync

    @blueprint.get("/edgekit/sync")
    def status() -> Response:
        return as_json(link().status())

    @blueprint.post("/edgekit/sync/check")
    def check() -> Response:
        link().check()
        return status()

    @blueprint.post("/edgekit/sync/update")
    def update() -> Response:
        link().update()
        return status()

    @blueprint.post("/edgekit/sync/rollback")
    def rollback() -> Response:
        found = link()
        found.rollback(read(json_body(), CHANNEL, lenient=settings.lenient).channel)
        return status()

    @blueprint.post("/edgekit/sync/pin")
    def pin() -> Response:
        found, body = link(), read(json_body(), PIN, lenient=settings.lenient)
        found.pin(body.channel, body.release)
        return status()

    @blueprint.post("/edgekit/sync/unpin")
    def unpin() -> Response:
        found = link()
        found.unpin(read(json_body(), CHANNEL, lenient=settings.lenient).channel)
        return status()

    return blueprint

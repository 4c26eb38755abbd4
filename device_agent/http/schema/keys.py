"""POST /v1/edgekit/keys: what a new key may do."""

from typing import Annotated

import msgspec
from msgspec import Meta

from device_agent.access.keys import (
    MOST_CONCURRENT,
    MOST_NAME_CHARS,
    MOST_REQUESTS_PER_MINUTE,
    MOST_TOKENS_PER_DAY,
    KeyWish,
    Quotas,
    Scope,
)
from device_agent.http.schema.form import Form


class KeyBody(msgspec.Struct, kw_only=True):
    """`expires_at` is in Unix seconds. A quota that is left out is no limit."""

    name: Annotated[str, Meta(min_length=1, max_length=MOST_NAME_CHARS)]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=2)] | None = None
    tokens_per_day: Annotated[int, Meta(ge=0, le=MOST_TOKENS_PER_DAY)] | None = None
    requests_per_minute: Annotated[int, Meta(ge=0, le=MOST_REQUESTS_PER_MINUTE)] | None = None
    concurrent: Annotated[int, Meta(ge=0, le=MOST_CONCURRENT)] | None = None
    expires_at: Annotated[int, Meta(ge=0, le=1 << 53)] | None = None


KEY = Form(shape=KeyBody)


def wish_of(body: KeyBody) -> KeyWish:
    """As the keys' room understands it, which looks whether it makes sense."""
    return KeyWish(
        name=body.name,
        scopes=tuple(body.scopes or ("infer",)),
        quotas=Quotas(
            tokens_per_day=body.tokens_per_day,
            requests_per_minute=body.requests_per_minute,
            concurrent=body.concurrent,
        ),
        expires_at=body.expires_at,
    )

"""From a request in any dialect to its running exchange: what chat, responses and messages have in common."""

from dataclasses import dataclass, replace

from device_agent.conversation import converse
from device_agent.conversation.phases import first_phases
from device_agent.conversation.records import ChatRequest, Exchange
from device_agent.http import serving
from device_agent.http.schema.sampling import check_sampling
from device_agent.http.services import Caller, Dialect, ModelName, Services
from device_agent.http.visit import Visit
from edgekit.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Begun:
    """A visit whose exchange runs; `wanted` is the request with what the model's name says."""

    visit: Visit
    wanted: ChatRequest
    exchange: Exchange


def begin(services: Services, who: Caller, dialect: Dialect, model: str, request: ChatRequest) -> Begun:
    """Have the model of this name answer.

    Raises what `Visit`, `check_sampling` and `converse.start` raise: all of it has its own status line, and nothing is
    held then.
    """
    visit = Visit(services, who, dialect, model)
    with serving.beginning(visit):
        visit.asked("\n".join(f"{turn.role}: {turn.content}" for turn in request.messages))
        wanted = _directed(request, visit.lease.name)
        check_sampling(wanted.sampling, wanted.max_tokens, serving.facts_of(visit.lease.model))
        return Begun(visit, wanted, converse.start(visit.lease.model, wanted, strategies=services.strategies))


def prompt_tokens(services: Services, model: str, request: ChatRequest) -> int:
    """How long the prompt is that the model of this name would read first. Raises as `begin`; nothing is served."""
    lease = services.models.lease(model)
    try:
        first = first_phases(lease.model, _directed(request, lease.name), services.strategies)[0]
    finally:
        lease.release()
    return len(first.generation.prompt)


def _directed(request: ChatRequest, name: ModelName) -> ChatRequest:
    """Raises InvalidRequest if the request and its model's name ask for different strategies."""
    if request.strategy is not None and name.strategy is not None and request.strategy != name.strategy:
        raise InvalidRequest(
            f"edgekit.strategy is {request.strategy[:100]!r}, but the model's name says {name.strategy!r}.",
            param="edgekit.strategy",
        )
    return replace(request, adapter=name.adapter, strategy=request.strategy or name.strategy)

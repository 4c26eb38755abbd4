"""Schemathesis on the document that the agent serves: what it says is what the agent does."""

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.clients.agent import Agent

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 12
"""For each operation and mode: most are refused at once, and those that are not write a few tokens."""

LENGTHS = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
}
"""A length that is not asked for would be the context's: such requests are given one."""


@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
def test_the_agent_does_what_its_document_says(agent: Agent, mode: Any) -> None:
    document = schemathesis.openapi.from_dict(json.loads(agent.get("/openapi.json")))
    seen = 0
    for found in document.get_all_operations():
        _hold(agent, found.ok(), mode)
        seen += 1
    assert seen > 20


def _hold(agent: Agent, operation: Any, mode: Any) -> None:
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        return  # nothing of it could be wrong

    # Derandomised: what CI says can be repeated. More EXAMPLES search further.
    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        length = LENGTHS.get(case.operation.path)
        if length and isinstance(case.body, dict):
            case.body.setdefault(length, 3)
        case.call_and_validate(base_url=agent.url, checks=CHECKS, timeout=300)

    each()

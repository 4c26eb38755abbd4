"""Schemathesis on the document that the agent serves: what it says is what the agent does."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.clients.agent import Agent

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15
"""For each operation: most are refused at once, and those that are not write a few tokens."""


@pytest.fixture
def api(agent: Agent) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_dict(json.loads(agent.get("/openapi.json")))


schema = schemathesis.pytest.from_fixture("api")


@pytest.mark.usefixtures("alive")
@schema.parametrize()  # type: ignore[untyped-decorator,unused-ignore]  # typed only where the library is installed
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_agent_does_what_its_document_says(case: schemathesis.Case, agent: Agent) -> None:
    case.call_and_validate(base_url=agent.url, checks=CHECKS, timeout=300)

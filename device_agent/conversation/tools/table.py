"""Which syntax a model writes, by what its chat template contains."""

from device_agent.conversation.tools.generic import GENERIC
from device_agent.conversation.tools.hermes import HERMES
from device_agent.conversation.tools.llama import LLAMA
from device_agent.conversation.tools.mistral import MISTRAL, MISTRAL_NAMED
from device_agent.conversation.tools.phi import GRANITE, PHI
from device_agent.conversation.tools.records import Syntax

SYNTAXES = (MISTRAL_NAMED, MISTRAL, PHI, GRANITE, HERMES, LLAMA)


def syntax_of(template: str | None) -> Syntax:
    """The first of the table whose marks are in the template; the generic one if there is none."""
    source = template or ""
    for syntax in SYNTAXES:
        if all(mark in source for mark in syntax.marks) and not any(mark in source for mark in syntax.unless):
            return syntax
    return GENERIC

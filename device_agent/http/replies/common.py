"""What all replies have in common. Pure; the shapes are in shapes.py."""

import hashlib
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, UnsetType

from device_agent.conversation.records import Spent
from device_agent.engine.records import Timings
from device_agent.http.replies.shapes import CompletionDetails, PromptDetails, Timing, Usage
from edgekit.errors import ContextOverflow, EdgekitError, RequestError
from edgekit.manifest import Manifest

Json = dict[str, Any]


def fingerprint(manifest: Manifest, adapter: str | None) -> str:
    """`system_fingerprint`: changes when the model's name or version does, or the adapter."""
    facts = f"{manifest.name}\n{manifest.version}" + ("" if adapter is None else f"\n{adapter}")
    return "fp_" + hashlib.sha256(facts.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What stays the same through one answer. `created` is Unix seconds; `model` is what the request named."""

    id: str
    created: int
    model: str
    fingerprint: str
    with_usage: bool = False


def usage(spent: Spent) -> Usage:
    """Tokens of a request."""
    return Usage(
        prompt_tokens=spent.input,
        completion_tokens=spent.output,
        total_tokens=spent.input + spent.output,
        prompt_tokens_details=PromptDetails(cached_tokens=spent.cached),
        completion_tokens_details=CompletionDetails(reasoning_tokens=spent.reasoning),
    )


def timing(timings: Timings | None) -> Timing | UnsetType:
    """How long a choice took, if it is known."""
    if timings is None:
        return UNSET
    return Timing(
        prompt_n=timings.read_tokens,
        prompt_ms=round(timings.prompt_s * 1000, 3),
        prompt_per_second=round(timings.prompt_per_second, 3),
        predicted_n=timings.generated_tokens,
        predicted_ms=round(timings.generate_s * 1000, 3),
        predicted_per_second=round(timings.generated_per_second, 3),
    )


def error(problem: EdgekitError) -> Json:
    """OpenAI's error object; a context overflow adds llama.cpp's two numbers."""
    param = problem.param if isinstance(problem, RequestError) else None
    body: Json = {"message": str(problem), "type": problem.type, "param": param, "code": problem.code}
    if isinstance(problem, ContextOverflow):
        body |= {"n_prompt_tokens": problem.prompt_tokens, "n_ctx": problem.context_tokens}
    return {"error": body}

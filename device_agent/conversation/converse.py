"""A conversation to its exchange."""

from device_agent.conversation.complete import Completion, CompletionRequest, start_completion
from device_agent.conversation.records import ChatRequest
from device_agent.engine.records import ModelService


def start(model: ModelService, request: ChatRequest) -> Completion:
    """Free text only, so far. Raises what `start_completion` raises."""
    wanted = CompletionRequest(
        prompts=(model.chat_prompt(request.messages, tools=request.tools),),
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        stop=request.stop,
        grammar=request.grammar,
        choices=request.choices,
        top_logprobs=request.top_logprobs,
        adapter=request.adapter,
    )
    return start_completion(model, wanted)

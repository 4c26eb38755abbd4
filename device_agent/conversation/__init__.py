"""From a conversation to events: prompt, grammar, tools, reasoning. No HTTP, no JSON of any client's dialect.

    ChatRequest -> converse.start(model, request) -> Exchange: Said, Thought, Called, Argued ... Ended

OpenAI's chat, OpenAI's responses and Anthropic's messages are three dialects of the same request and the same events
(device_agent/http). Nothing here waits for a socket; the model is a `ModelService` (device_agent/engine/records.py).
"""

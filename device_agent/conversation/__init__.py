"""From a conversation to events: prompt, grammar, tools, reasoning. No HTTP, no JSON of any client's dialect.

    ChatRequest -> converse.start(model, request) -> Exchange: Said, Thought, Called, Argued ... Ended

    phases.py   which generations answer a request: reasoning, answer; asking.py makes their prompts
    merge.py    several answers as one stream of pieces, for all choices and for plain completions with many prompts
    reading.py  pieces to events; thinking.py finds a model's own reasoning, tools/ its calls

OpenAI's chat, OpenAI's responses and Anthropic's messages are three dialects of the same request and the same events
(device_agent/http). Nothing here waits for a socket; the model is a `ModelService` (device_agent/engine/records.py).
"""

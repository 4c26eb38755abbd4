"""A running agent, asked what client libraries ask it. Each check is a function that raises `Wrong`.

What they depend on was read from the libraries and from the reports of their users: the openai SDK, LangChain,
LlamaIndex, litellm, lm-eval and Anthropic's SDK. The model's words do not matter to any of them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from device_agent.doctor.records import Ask, Finding, Reply

Json = dict[str, Any]
HELLO = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Lima"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FORCED = {"type": "regex", "value": "one two three"}
"""An answer that no rounding can change."""
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}


class Wrong(Exception):
    """What a client library would trip over."""


@dataclass(frozen=True, slots=True)
class Agent:
    """How to ask, and the ids of a model that writes and of one that makes vectors ("": none)."""

    ask: Ask
    model: str = ""
    encoder: str = ""


def examine(ask: Ask) -> Iterator[Finding]:
    """Every check, one finding each; a check that nobody answers is red, and the rest is left out."""
    try:
        agent = _acquainted(ask)
    except (Wrong, OSError) as error:
        yield Finding("models", "red", str(error), "Is the agent running, and is this its address?")
        return
    yield Finding("models", "green", f"{agent.model or 'none that writes'}, {agent.encoder or 'none for vectors'}")
    for name, check, needs in CHECKS:
        if not getattr(agent, needs):
            yield Finding(name, "green", f"nothing to check: the agent serves no {needs}")
            continue
        try:
            yield Finding(name, "green", check(agent))
        except (Wrong, OSError, KeyError, IndexError, TypeError, ValueError) as error:
            said = str(error) if isinstance(error, Wrong) else f"an answer of another shape: {error!r}"
            yield Finding(name, "red", said[:300], "Please report this with the agent's version.")


# --- asking ---------------------------------------------------------------------------------


def _acquainted(ask: Ask) -> Agent:
    listing = _json(ask("GET", "/v1/models"))
    _check(listing.get("object") == "list", "the listing is no list")
    found: dict[str, str] = {}
    for card in listing["data"]:
        _check({"id", "object", "created", "owned_by"} <= set(card), f"the model {card.get('id')!r} lacks a field")
        found.setdefault(card["meta"]["kind"], card["id"])
    return Agent(ask, found.get("generate", ""), found.get("embed", ""))


def _json(reply: Reply, *, status: int = 200) -> Json:
    if reply.status == 401:
        raise Wrong("a key is needed: give it with --key")
    _check(reply.status == status, f"status {reply.status} instead of {status}: {reply.body[:150]!r}")
    _check(reply.headers.get("content-type", "").startswith("application/json"), "the answer is not application/json")
    value: Json = json.loads(reply.body)
    return value


def _chat(agent: Agent, extra: Json, *, status: int = 200) -> Json:
    body = {"model": agent.model, "messages": HELLO, "max_tokens": 8, "temperature": 0} | extra
    return _json(agent.ask("POST", "/v1/chat/completions", body=body), status=status)


def _stream(agent: Agent, extra: Json) -> list[Json]:
    """Chunks of a stream that ends as it should."""
    body = {"model": agent.model, "messages": HELLO, "max_tokens": 8, "temperature": 0, "stream": True} | extra
    reply = agent.ask("POST", "/v1/chat/completions", body=body)
    _check(reply.status == 200, f"status {reply.status}: {reply.body[:150]!r}")
    _check(reply.headers.get("content-type", "").startswith("text/event-stream"), "a stream is not text/event-stream")
    data = [line[6:] for line in reply.body.decode().split("\n") if line.startswith("data: ")]
    _check(data[-1:] == ["[DONE]"], "a stream does not end with [DONE]")
    return [json.loads(line) for line in data[:-1]]


def _check(fact: object, wrong: str) -> None:
    if not fact:
        raise Wrong(wrong)


def _error(value: Json, *, code: str | None = None, param: str | None = None) -> None:
    shape = value.get("error", {})
    _check({"message", "type", "param", "code"} <= set(shape), "an error is not OpenAI's error object")
    _check(code is None or shape["code"] == code, f"the error's code is {shape['code']!r} instead of {code!r}")
    _check(param is None or shape["param"] == param, f"the error names {shape['param']!r} instead of {param!r}")


# --- what they depend on --------------------------------------------------------------------


def _health(agent: Agent) -> str:
    _check(_json(agent.ask("GET", "/health")).get("status") == "ok", "/health does not say ok")
    return "ok"


def _one_model(agent: Agent) -> str:
    card = _json(agent.ask("GET", f"/v1/models/{agent.model}"))
    _check(card["id"] == agent.model, "another model came back")
    _error(_json(agent.ask("GET", "/v1/models/no-such-model"), status=404), code="model_not_found")
    context = card["meta"]["n_ctx"]
    return f"a context of {context:,} tokens is told"


def _whole_chat(agent: Agent) -> str:
    answer = _chat(agent, {})
    _check(
        {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"} <= set(answer), "a field lacks"
    )
    choice, usage = answer["choices"][0], answer["usage"]
    _check(isinstance(choice["message"]["content"], str), "content is no text")
    _check(choice["finish_reason"] in ("stop", "length"), "no finish_reason")
    _check(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], "the usage does not add up")
    _check("cached_tokens" in usage["prompt_tokens_details"], "cached tokens are not told")
    return "whole, with usage"


def _chat_stream(agent: Agent) -> str:
    chunks = _stream(agent, {"grammar": FORCED, "max_tokens": 40})
    _check(len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1, "id or created change within a stream")
    _check(chunks[0]["choices"][0]["delta"].get("role") == "assistant", "the first chunk does not tell the role")
    _check(all(chunk["choices"] for chunk in chunks), "a chunk without choices came although usage was not asked for")
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    _check(reasons[-1] and not any(reasons[:-1]), "finish_reason is not in the last chunk alone")
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    _check(text == FORCED["value"], f"the stream says {text!r}, and not what its grammar allows")
    return f"{len(chunks)} chunks"


def _stream_usage(agent: Agent) -> str:
    *_, last = _stream(agent, {"stream_options": {"include_usage": True}})
    _check(last["choices"] == [] and last["usage"]["completion_tokens"] > 0, "the last chunk is not the usage")
    return "only when asked"


def _limits(agent: Agent) -> str:
    answer = _chat(agent, {"max_completion_tokens": 2, "max_tokens": None})
    _check(answer["usage"]["completion_tokens"] <= 2, "max_completion_tokens is not kept")
    stopped = _chat(agent, {"grammar": FORCED, "stop": " two", "max_tokens": 30})["choices"][0]
    _check(stopped["message"]["content"] == "one", f"stop gives {stopped['message']['content']!r}")
    _check(stopped["finish_reason"] == "stop", "a stop string does not end with 'stop'")
    return "max_tokens and stop are kept"


def _seed(agent: Agent) -> str:
    """Of three times, because 4-bit kernels round otherwise where others are served beside (README, Measured)."""
    form = {"seed": 11, "temperature": 1.5, "n": 2}
    texts = [tuple(choice["message"]["content"] for choice in _chat(agent, form)["choices"]) for _ in range(3)]
    _check(len(texts[0]) == 2, "n: 2 does not give two choices")
    _check(len(set(texts)) < 3, "the same seed gives another text each time")
    return "two choices, repeatable"


def _logprobs(agent: Agent) -> str:
    chat = _chat(agent, {"logprobs": True, "top_logprobs": 3})["choices"][0]["logprobs"]["content"]
    _check(all(len(token["top_logprobs"]) == 3 and token["logprob"] <= 0 for token in chat), "chat: wrong logprobs")
    body = {"model": agent.model, "prompt": "One two", "echo": True, "logprobs": 1, "max_tokens": 1}
    shape = _json(agent.ask("POST", "/v1/completions", body=body))["choices"][0]["logprobs"]
    _check({"tokens", "token_logprobs", "top_logprobs", "text_offset"} <= set(shape), "completions: another shape")
    _check(shape["token_logprobs"][0] is None and None not in shape["token_logprobs"][1:], "echo: wrong logprobs")
    return "in both shapes, of the prompt too"


def _unknown(agent: Agent) -> str:
    _error(_chat(agent, {"no_such_parameter": 1}, status=400), param="no_such_parameter")
    _error(_chat(agent, {"temperature": "hot"}, status=400), param="temperature")
    _error(_json(agent.ask("POST", "/v1/chat/completions", body=[]), status=400))
    return "refused by name"


def _overflow(agent: Agent) -> str:
    context = _json(agent.ask("GET", f"/v1/models/{agent.model}"))["meta"]["n_ctx"]
    error = _chat(agent, {"messages": [{"role": "user", "content": "word " * context}]}, status=400)
    _error(error, code="context_length_exceeded")
    _check("maximum context length is" in error["error"]["message"], "litellm would not know this sentence")
    return "in the words that litellm and LangChain look for"


def _structured(agent: Agent) -> str:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
    choice = _chat(agent, {"response_format": form, "max_tokens": 40})["choices"][0]
    value = json.loads(choice["message"]["content"])
    _check(value["colour"] in ("red", "blue") and choice["finish_reason"] == "stop", "the schema is not kept")
    bad = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "no-such-type"}}}
    _error(_chat(agent, {"response_format": bad}, status=400))
    return "the schema is kept, a wrong one refused"


def _tools(agent: Agent) -> str:
    form = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 60}
    choice = _chat(agent, form)["choices"][0]
    call = choice["message"]["tool_calls"][0]
    _check(choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None, "not a tool call alone")
    _check(isinstance(call["function"]["arguments"], str), "arguments are not the text of JSON")
    deltas = [
        delta
        for chunk in _stream(agent, form)
        for delta in chunk["choices"][0]["delta"].get("tool_calls") or ()
        if delta["index"] == 0
    ]
    _check(all("index" in delta for delta in deltas), "a delta has no index")
    _check(sum("name" in delta["function"] for delta in deltas) == 1, "the name does not come exactly once")
    arguments = "".join(delta["function"].get("arguments") or "" for delta in deltas)
    _check(json.loads(arguments)["city"] in ("Oslo", "Lima"), "the arguments do not add up")
    return "called as asked, whole and streamed"


def _embeddings(agent: Agent) -> str:
    body: Json = {"model": agent.encoder, "input": ["a cat", "a dog"]}
    plain = _json(agent.ask("POST", "/v1/embeddings", body=body | {"encoding_format": "float"}))
    packed = _json(agent.ask("POST", "/v1/embeddings", body=body | {"encoding_format": "base64"}))
    _check([item["index"] for item in plain["data"]] == [0, 1], "the order is lost")
    _check(isinstance(packed["data"][0]["embedding"], str), "base64 was asked for, and something else came")
    _error(_json(agent.ask("POST", "/v1/embeddings", body=body | {"input": [[1, 2]]}), status=400))
    return f"{len(plain['data'][0]['embedding'])} values, also as base64"


def _responses(agent: Agent) -> str:
    body = {"model": agent.model, "input": "Say hello.", "max_output_tokens": 8, "temperature": 0}
    answer = _json(agent.ask("POST", "/v1/responses", body=body))
    _check(answer["output"][0]["content"][0]["type"] == "output_text", "no output_text")
    return str(answer["status"])


def _messages(agent: Agent) -> str:
    body = {"model": agent.model, "messages": HELLO, "max_tokens": 8}
    answer = _json(agent.ask("POST", "/v1/messages", body=body))
    _check(answer["content"][0]["type"] == "text", "no text block")
    wrong = _json(agent.ask("POST", "/v1/messages", body=body | {"model": "no-such-model"}), status=404)
    _check(wrong["type"] == "error" and wrong["error"]["type"] == "not_found_error", "not Anthropic's error object")
    return str(answer["stop_reason"])


def _closed(agent: Agent) -> str:
    """A web page somewhere may name this agent, and must get nothing of it."""
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        reply = agent.ask("GET", "/v1/models", headers=headers)
        _check(reply.status == 403, f"a request with {headers} is answered with {reply.status}")
        _check("access-control-allow-origin" not in reply.headers, "another site is allowed to read")
    return "other hosts and origins get nothing"


def _admin(agent: Agent) -> str:
    path = f"/v1/edgekit/models/{agent.model}/unload"
    reply = agent.ask("POST", path, body={}, headers={"Authorization": "Bearer none"})
    _check(reply.status in (401, 403), f"a key that nobody made may unload a model: {reply.status}")
    return "changes need the admin token"


def _metrics(agent: Agent) -> str:
    reply = agent.ask("GET", "/metrics")
    _check(reply.status == 200 and reply.headers["content-type"].startswith("text/plain"), "not Prometheus' format")
    names = {line.split()[2] for line in reply.body.decode().splitlines() if line.startswith("# TYPE ")}
    _check(names, "no metric")
    return f"{len(names)} metrics"


Check = Callable[[Agent], str]
CHECKS: Sequence[tuple[str, Check, str]] = (
    ("health", _health, "ask"),
    ("metrics", _metrics, "ask"),
    ("other sites", _closed, "ask"),
    ("one model", _one_model, "model"),
    ("chat", _whole_chat, "model"),
    ("chat stream", _chat_stream, "model"),
    ("stream usage", _stream_usage, "model"),
    ("limits", _limits, "model"),
    ("seed and n", _seed, "model"),
    ("logprobs", _logprobs, "model"),
    ("unknown parameters", _unknown, "model"),
    ("context overflow", _overflow, "model"),
    ("structured output", _structured, "model"),
    ("tools", _tools, "model"),
    ("responses", _responses, "model"),
    ("messages", _messages, "model"),
    ("admin", _admin, "model"),
    ("embeddings", _embeddings, "encoder"),
)
"""Name, check, and what of `Agent` it needs."""

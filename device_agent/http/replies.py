"""The JSON shapes that OpenAI clients expect (platform.openai.com, API reference). Pure.

A `Reply` is what stays the same through one answer: id, time, model. Chat and plain completions differ in a few
places only, so both are here, side by side.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from device_agent.engine.records import FinishReason, Timings
from edgekit.errors import ContextOverflow, EdgekitError, RequestError
from edgekit.manifest import Manifest

Json = dict[str, Any]
Kind = Literal["chat", "completion"]


def fingerprint(manifest: Manifest) -> str:
    """`system_fingerprint`: changes when the model's name or version does."""
    return "fp_" + hashlib.sha256(f"{manifest.name}\n{manifest.version}".encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer's shapes. `created` is Unix seconds; `with_usage` is the client's stream_options.include_usage."""

    kind: Kind
    id: str
    created: int
    model: str
    fingerprint: str
    with_usage: bool = False

    def opening(self) -> Json | None:
        """First chunk of a chat stream: the role. Completions have none."""
        if self.kind == "completion":
            return None
        return self._chunk([_choice(None, delta={"role": "assistant", "content": ""})])

    def text(self, text: str) -> Json:
        """A chunk that carries text."""
        if self.kind == "completion":
            return self._chunk([_choice(None, text=text)])
        return self._chunk([_choice(None, delta={"content": text})])

    def closing(self, finish: FinishReason, timings: Timings | None) -> Json:
        """The chunk that says why the answer ended, with `timings` as llama.cpp sends them."""
        choice = _choice(finish, text="") if self.kind == "completion" else _choice(finish, delta={})
        return self._chunk([choice]) | _timings(timings)

    def usage(self, prompt_tokens: int, completion_tokens: int, *, cached_tokens: int) -> Json:
        """The chunk after `closing`, only for clients that asked: naive ones index choices[0]."""
        return self._chunk([]) | {"usage": _usage(prompt_tokens, completion_tokens, cached_tokens=cached_tokens)}

    def whole(
        self,
        text: str,
        *,
        finish: FinishReason,
        timings: Timings | None,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> Json:
        """The answer in one piece."""
        if self.kind == "completion":
            choice = _choice(finish, text=text)
        else:
            choice = _choice(finish, message={"role": "assistant", "content": text})
        envelope = self._envelope("text_completion" if self.kind == "completion" else "chat.completion")
        usage = _usage(prompt_tokens, completion_tokens, cached_tokens=timings.cached_tokens if timings else 0)
        return envelope | {"choices": [choice], "usage": usage} | _timings(timings)

    def _chunk(self, choices: list[Json]) -> Json:
        envelope = self._envelope("text_completion" if self.kind == "completion" else "chat.completion.chunk")
        # OpenAI sends a null usage in every chunk before the one that has it.
        return envelope | {"choices": choices} | ({"usage": None} if self.with_usage else {})

    def _envelope(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def _choice(
    finish: FinishReason | None, *, text: str | None = None, delta: Json | None = None, message: Json | None = None
) -> Json:
    """The one choice, with whichever of text, delta and message this kind of answer has."""
    contents = {"text": text, "delta": delta, "message": message}
    present = {name: value for name, value in contents.items() if value is not None}
    return {"index": 0, **present, "logprobs": None, "finish_reason": finish}


def _usage(prompt_tokens: int, completion_tokens: int, *, cached_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def _timings(timings: Timings | None) -> Json:
    """llama.cpp's names: "prompt" is reading what of it was not cached, "predicted" is decoding."""
    if timings is None:
        return {}
    return {
        "timings": {
            "prompt_n": timings.read_tokens,
            "prompt_ms": round(timings.prompt_s * 1000, 3),
            "prompt_per_second": round(timings.prompt_per_second, 3),
            "predicted_n": timings.generated_tokens,
            "predicted_ms": round(timings.generate_s * 1000, 3),
            "predicted_per_second": round(timings.generated_per_second, 3),
        }
    }


def model(manifest: Manifest, *, context_tokens: int, loaded_at: int) -> Json:
    """An entry of /v1/models. `meta` is ours, with llama.cpp's names where it has them; `size` is in bytes."""
    return {
        "id": manifest.name,
        "object": "model",
        "created": loaded_at,
        "owned_by": "edgekit",
        "meta": {
            "n_ctx": context_tokens,
            "n_ctx_train": manifest.arch.context,
            "n_vocab": manifest.arch.vocab,
            "n_params": manifest.arch.parameters,
            "size": manifest.file_bytes,
            "quantisation": manifest.quant.precision,
            "version": manifest.version,
            "sha256": hashlib.sha256(manifest.to_bytes()).hexdigest(),
        },
    }


def error(problem: EdgekitError) -> Json:
    """OpenAI's error object; a context overflow adds llama.cpp's two numbers."""
    param = problem.param if isinstance(problem, RequestError) else None
    body: Json = {"message": str(problem), "type": problem.type, "param": param, "code": problem.code}
    if isinstance(problem, ContextOverflow):
        body |= {"n_prompt_tokens": problem.prompt_tokens, "n_ctx": problem.context_tokens}
    return {"error": body}

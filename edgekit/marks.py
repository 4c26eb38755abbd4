"""Marks between which some models write their reasoning, before the answer.

Most write <think> and </think>. Templates of some open the first mark themselves; others close both at once when
reasoning is switched off, which is also how a model is kept from it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands before and behind the reasoning."""

    opening: str
    closing: str

    def opened(self, prompt: str) -> bool:
        """Whether an answer to this prompt begins inside of the reasoning. The prompt's last words are enough."""
        return prompt.rstrip().endswith(self.opening)

    def closed(self, prompt: str) -> bool:
        """Whether an answer to this prompt begins behind reasoning that was skipped."""
        return prompt.rstrip().endswith(self.closing)

    def skipping(self, prompt: str, *, template: str) -> str:
        """What an answer must begin with so that a model with this template does not reason first; "" if nothing.

        That a template speaks of the opening mark shows that reasoning is a part of the model's turns. Others only
        have the marks in a vocabulary that they share, or in a rule that takes them out of older turns.
        """
        if self.opened(prompt):
            return f"{self.closing}\n\n"
        if self.closed(prompt) or self.opening not in template:
            return ""
        return f"{self.opening}\n\n{self.closing}\n\n"  # as Qwen3's template writes it


MARKS = (
    Marks("<think>", "</think>"),  # Qwen3, SmolLM3, DeepSeek-R1 and its distills, Phi-4-reasoning, Hunyuan
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("<thought>", "</thought>"),  # EXAONE Deep
)
"""The first pair that a model knows is its own."""


def marks_in(template: str) -> Marks | None:
    """The marks of which a chat template speaks."""
    return next((marks for marks in MARKS if marks.opening in template or marks.closing in template), None)

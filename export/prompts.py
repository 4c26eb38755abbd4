"""Texts of our own for verification: ordinary English, so that quality is measured where models are used."""

from dataclasses import dataclass

from edgekit.arch import ModelArch
from edgekit.chat import Message
from edgekit.errors import CheckpointError
from export.checkpoints import TextFiles
from export.verify import GOLDEN_TOKENS, LARGE_PARAMETERS

PROBE_TEXT = (
    "A lighthouse keeper once wrote down the weather every morning for thirty years. Most of the entries are short: "
    "the wind, the height of the waves, the ships that passed. On quiet days he added what he had for breakfast and "
    "which birds had rested on the railing. When the lamp was replaced by an electric one, he noted the date and the "
    "name of the engineer, and nothing else. His daughter found the books in 1974 and gave them to the museum in town, "
    "where anyone who asks may read them. They show that winters were colder then, that gulls prefer herring to bread, "
    "and that a careful person can be happy with very little company."
)
GOLDEN_TEXTS = (
    "1, 2, 3, 4, 5, 6, 7,",
    "2 + 2 = 4\n3 + 3 = 6\n4 + 4 =",
    "def add(a, b):\n    return",
    "The capital of France is",
)
PROBE_TOKENS_OF_LARGE = 64
"""A model of billions of weights is computed twice in plain numpy: half the text tells a wrong graph as well."""

GOLDEN_QUESTION = "What is the capital of France? Answer in one sentence."


@dataclass(frozen=True)
class Prompts:
    """Token ids: `probe` is ordinary text, `golden` is what golden tokens follow."""

    probe: list[int]
    golden: list[list[int]]


def prompts_for(text: TextFiles, arch: ModelArch) -> Prompts:
    """The texts above in a model's own tokens, cut where its context is short.

    Raises CheckpointError if the tokenizer makes ids that the model does not have, TemplateError if the chat template
    refuses a plain question.
    """
    tokenizer, template = text.tokenizer(), text.template()

    def encode(content: str) -> list[int]:
        return list(tokenizer.encode(content, add_special_tokens=False).ids)

    first = [text.bos_id] if text.add_bos and text.bos_id is not None else []
    golden = [first + encode(content) for content in GOLDEN_TEXTS]
    if template is not None:
        golden.append(encode(template.render([Message(role="user", content=GOLDEN_QUESTION)])))
    probe = encode(PROBE_TEXT)
    largest = max(token for ids in (probe, text.eos_ids, *golden) for token in ids)
    if largest >= arch.vocab:
        raise CheckpointError(f"its tokenizer makes the id {largest}, but the model has only {arch.vocab} tokens")
    room = arch.context - GOLDEN_TOKENS
    longest = arch.context if arch.parameters < LARGE_PARAMETERS else PROBE_TOKENS_OF_LARGE
    return Prompts(probe[: min(longest, arch.context)], [prompt[:room] for prompt in golden if room > 0])

"""Texts of our own for verification: ordinary English, so that quality is measured where models are used."""

import tokenizers

from export.checkpoints import TextFiles

PROBE_TEXT = (
    "A lighthouse keeper once wrote down the weather every morning for thirty years. Most of the entries are short: "
    "the wind, the height of the waves, the ships that passed. On quiet days he added what he had for breakfast and "
    "which birds had rested on the railing. When the lamp was replaced by an electric one, he noted the date and the "
    "name of the engineer, and nothing else. His daughter found the books in 1974 and gave them to the museum in town, "
    "where anyone who asks may read them. They show that winters were colder then, that gulls prefer herring to bread, "
    "and that a careful person can be happy with very little company."
)
GOLDEN_TEXT = "The capital of France is"
GOLDEN_QUESTION = "What is the capital of France?"


def encode(text: TextFiles, content: str) -> list[int]:
    """Ids of `content`, with nothing put before or after it."""
    tokenizer = tokenizers.Tokenizer.from_str(text.tokenizer_json.decode())
    return list(tokenizer.encode(content, add_special_tokens=False).ids)


def token_text(text: TextFiles, token: int | None) -> str:
    """What a special token is written as; nothing for None or an unknown id."""
    if token is None:
        return ""
    return tokenizers.Tokenizer.from_str(text.tokenizer_json.decode()).id_to_token(token) or ""

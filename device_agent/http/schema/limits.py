"""Every bound on what a request may ask for or carry. The body's own size is HttpSettings.body_limit_bytes."""

from typing import Final

# --- bodies ---------------------------------------------------------------------------------

CONTAINERS: Final = 200_000
"""Opening brackets and braces of a body: each becomes an object in memory that is larger than its two bytes."""
LABEL_BYTES: Final = 64 << 10
"""JSON of a label, such as `metadata`."""
LOGGED_NAMES: Final = 20
"""Names of one body that a lenient agent writes into its log."""
NAME_CHARS: Final = 500
"""A model's name in a request."""

# --- answers --------------------------------------------------------------------------------

CHOICES: Final = 8
"""`n`."""
PROMPTS_AND_CHOICES: Final = 32
"""Prompts of one completion request times `n`."""
STOPS: Final = 4
STOP_CHARS: Final = 500
BIASES: Final = 1024
"""Entries of `logit_bias`."""
TOP_LOGPROBS: Final = 20

# --- conversations --------------------------------------------------------------------------

MESSAGES: Final = 4096
PARTS: Final = 1024
"""Parts of one message."""
SPEAKER_CHARS: Final = 64
"""`name` of a message or of a tool."""
CALL_ID_CHARS: Final = 128
TOOLS: Final = 128
CALLS: Final = 128
"""Tool calls in one message."""

# --- grammars -------------------------------------------------------------------------------

SCHEMA_BYTES: Final = 256 << 10
"""A JSON schema's text: of `response_format`, or of one tool's parameters."""
GRAMMAR_CHARS: Final = 64 << 10
"""A regular expression's or a Lark grammar's text."""

# --- embeddings and text --------------------------------------------------------------------

INPUTS: Final = 2048
INPUT_TOKENS: Final = 300_000
"""Tokens of all inputs of one embedding request together."""
DETOKENIZED: Final = 1 << 20
"""Token ids of one /detokenize request."""

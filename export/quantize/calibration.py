"""The text by which rounding is calibrated: a file's, or what the model writes itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.chat import Message
from edgekit.errors import CalibrationTooShort, CheckpointError, CheckpointNotFound, TemplateError
from export.checkpoints import TextFiles
from export.checkpoints.extents import read_start
from export.families.weights import Weights
from export.graph import decoder
from export.quantize import plan as planning
from export.quantize import selftext
from export.quantize.plan import Recipe

Ids = npt.NDArray[np.int64]
Advance = Callable[[int, int], None]

ROWS, ROW_TOKENS = 64, 384
"""24,576 tokens: several times as many as the widest matrix of a small model has columns, so that H has full rank."""

CACHE_ROWS = 16
"""For the scales of an INT8 cache alone: the largest values come early."""

MIN_ROWS = 8
MAX_TEXT_BYTES = 4 << 20
"""The tokenizer takes about 280 bytes of memory for each token; of a long text, this much is plenty."""

_SEED = 20


def from_file(path: Path, text: TextFiles, arch: ModelArch, rows: int = ROWS) -> Ids:
    """At most `rows` rows [rows, tokens] spread evenly over (the first MAX_TEXT_BYTES of) a text file.

    Raises CheckpointNotFound, CalibrationTooShort if it has fewer than MIN_ROWS rows, or CheckpointError if it cannot
    be read or has words that the tokenizer knows and the model does not.
    """
    if not path.is_file():
        raise CheckpointNotFound(f"{path}: there is no such text file")
    content = read_start(path, MAX_TEXT_BYTES).decode("utf-8", "replace")
    tokenizer = text.tokenizer()
    ids = np.asarray(tokenizer.encode(content, add_special_tokens=False).ids, np.int64)
    length = min(ROW_TOKENS, arch.context)
    rows = min(rows, len(ids) // length)
    if rows < MIN_ROWS:
        raise CalibrationTooShort(f"{path.name} has {len(ids):,} tokens, and {MIN_ROWS * length:,} are needed")
    if ids.max() >= arch.vocab:
        raise CheckpointError(f"its tokenizer makes the id {ids.max()}, but the model has only {arch.vocab} tokens")
    starts = np.linspace(0, len(ids) - length, rows).astype(np.int64)
    chosen: Ids = ids[starts[:, None] + np.arange(length)]
    return chosen


def from_model(
    arch: ModelArch, weights: Weights, text: TextFiles, folder: Path, advance: Advance, rows: int = ROWS
) -> Ids:
    """Rows that the model itself writes, by an INT8 graph of it that is made in `folder` for the occasion."""
    plan = planning.plan(arch, Recipe("int8"), weights)
    decoder.save(folder, arch, plan, weights, lambda each: planning.quantise(each, weights), lambda _: None)
    tokenizer = text.tokenizer()
    first = text.bos_id if text.bos_id is not None else text.eos_ids[0]
    added = set(tokenizer.get_added_tokens_decoder())
    ordinary = [token for token in range(min(tokenizer.get_vocab_size(), arch.vocab)) if token not in added]
    starts = selftext.starts_for(rows, vocab=ordinary, before=[first], chat=_opened_turn(text, tokenizer), seed=_SEED)
    length = min(ROW_TOKENS, arch.context)
    return selftext.write(folder / contract.MODEL_FILE, arch, starts, length, seed=_SEED, advance=advance)


def _opened_turn(text: TextFiles, tokenizer: tokenizers.Tokenizer) -> list[int] | None:
    """Ids of a user's turn up to its first word, as the chat template writes it; None without a usable template."""
    template, marker = text.template(), "edgekit"
    if template is None:
        return None
    try:
        opened = template.render([Message(role="user", content=marker)]).partition(marker)[0]
    except TemplateError:
        return None
    return list(tokenizer.encode(opened, add_special_tokens=False).ids)

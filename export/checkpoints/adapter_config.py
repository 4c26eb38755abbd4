"""adapter_config.json of a LoRA folder: how much of an adapter is added to which layer.

Keys as PEFT's LoraConfig spells them. Only what changes a merged weight is read; what was used in training alone
(dropout, layers_to_transform ...) is not, because the adapter's tensors say where it applies.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from edgekit.errors import CheckpointNotFound, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.extents import read_json_object
from export.checkpoints.hf import ADAPTER_CONFIG

_MAX_BYTES = 16 << 20
_MAX_PATTERNS = 4096

TO_MERGED = "Merge it where it was trained, model.merge_and_unload().save_pretrained(FOLDER), and export that folder"
"""What to do about an adapter that is not read."""

_REFUSED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
"""Settings under which a layer is more than W + scaling * B A."""

_KEEPS_THE_BASE = ("gaussian", "eva", "orthogonal")
"""Initialisations that leave the base weights alone; the others (PiSSA, OLoRA, CorDA, LoftQ ...) subtract from them."""

_PATTERN = re.compile(r"\^?(?:\w|-|\.\*?|\\\.|\\d\+?|\||\(|\))*\$?", re.ASCII)
_MAX_PATTERN_LENGTH = 300
_MAX_REPEATS = 2
_MAX_GROUPS = 3
"""Patterns within these bounds are matched in little time: single characters repeat, and few groups have choices."""

_Value = TypeVar("_Value", int, float)
_Rank = Annotated[int, msgspec.Meta(gt=0, lt=1 << 31)]
_Alpha = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class LoraConfig(msgspec.Struct, frozen=True):
    """The settings that decide a merged weight."""

    peft_type: str = ""
    r: _Rank = 8
    lora_alpha: _Alpha = 8
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    ensure_weight_tying: bool = False
    init_lora_weights: bool | str | None = True
    rank_pattern: dict[str, _Rank] | None = None
    alpha_pattern: dict[str, _Alpha] | None = None

    def scaling(self, module: str, rank: int) -> float:
        """What B A is multiplied by in the layer `module`, of the given rank."""
        alpha = _matching(self.alpha_pattern or {}, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def rank(self, module: str) -> int:
        """The rank of the layer `module`."""
        return _matching(self.rank_pattern or {}, module, self.r)


def read_config(folder: Path) -> LoraConfig:
    """Read and check it.

    Raises CheckpointNotFound, CorruptCheckpoint, or UnsupportedCheckpoint for an adapter that is no plain LoRA or DoRA.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointNotFound(f"{folder}: the folder has no {ADAPTER_CONFIG}, so it is not an adapter")
    raw = read_json_object(folder / ADAPTER_CONFIG, _MAX_BYTES)
    try:
        config = msgspec.convert(raw, LoraConfig)
    except msgspec.ValidationError as error:
        raise CorruptCheckpoint(f"{error}"[:500], ADAPTER_CONFIG) from error
    if config.peft_type != "LORA":
        raise UnsupportedCheckpoint(f"the adapter is of the type {config.peft_type!r}; LORA is read. {TO_MERGED}")
    for key in _REFUSED:
        if raw.get(key):
            raise UnsupportedCheckpoint(f"the adapter uses {key}, which is not read. {TO_MERGED}")
    start = config.init_lora_weights
    if isinstance(start, str) and start.lower() not in _KEEPS_THE_BASE:
        raise UnsupportedCheckpoint(
            f"the adapter was started by {start!r}, which changes the model under it. {TO_MERGED}, or convert it with "
            "path_initial_model_for_weight_conversion"
        )
    _check_patterns([*(config.rank_pattern or {}), *(config.alpha_pattern or {})])
    return config


def _check_patterns(keys: list[str]) -> None:
    """Refuse what `re` could spend for ever on."""
    if len(keys) > _MAX_PATTERNS:
        raise CorruptCheckpoint(f"it has {len(keys)} patterns for ranks and alphas", ADAPTER_CONFIG)
    for key in keys:
        plain = len(key) <= _MAX_PATTERN_LENGTH and _PATTERN.fullmatch(key) is not None
        if not plain or key.count("*") + key.count("+") > _MAX_REPEATS or key.count("(") > _MAX_GROUPS:
            raise UnsupportedCheckpoint(
                f"{ADAPTER_CONFIG} has the pattern {key[:100]!r}, which is not read. {TO_MERGED}"
            )
        try:
            _expression(key)
        except re.error as error:
            raise CorruptCheckpoint(f"the pattern {key!r}: {error}", ADAPTER_CONFIG) from error


@lru_cache(_MAX_PATTERNS)
def _expression(key: str) -> re.Pattern[str]:
    """A key names a module by its full path, or by the end of it (PEFT's get_pattern_key)."""
    return re.compile(rf"(?:.*\.)?(?:{key})$")


def _matching(patterns: Mapping[str, _Value], module: str, otherwise: _Value) -> _Value:
    """The value of the first pattern that names the module."""
    return next((patterns[key] for key in patterns if _expression(key).match(module)), otherwise)

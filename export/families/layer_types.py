"""Which layers attend through a window: `layer_types` of config.json, or the family's own pattern."""

from collections.abc import Callable

from edgekit.errors import UnsupportedCheckpoint
from export.families.config import Config

_MAX_LAYERS = 4096
"""A list of layers is made: a bound for what a configuration may ask for."""

_SLIDING = {"sliding_attention": True, "full_attention": False}


def sliding_layers(config: Config, layers: int, otherwise: Callable[[int], bool]) -> tuple[int, ...]:
    """Those of `layers` layers that have a window; `otherwise` says it of one where `layer_types` is absent.

    Raises UnsupportedCheckpoint for a kind of layer that is not known, or for another number of them than layers.
    """
    kinds = config.words("layer_types")
    if layers > _MAX_LAYERS:
        raise UnsupportedCheckpoint(f"num_hidden_layers is {layers:,}, more than {_MAX_LAYERS:,}")
    if kinds is None:
        return tuple(i for i in range(layers) if otherwise(i))
    if len(kinds) != layers:
        raise UnsupportedCheckpoint(f"layer_types names {len(kinds)} layers, and num_hidden_layers is {layers}")
    unknown = [kind for kind in kinds if kind not in _SLIDING]
    if unknown:
        raise UnsupportedCheckpoint(f"layer_types has {unknown[0]!r}; known: {', '.join(sorted(_SLIDING))}"[:300])
    return tuple(i for i, kind in enumerate(kinds) if _SLIDING[kind])

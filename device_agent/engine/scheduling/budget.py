"""How much memory the engine may take for conversations: settings and facts in, numbers out. Pure."""

USUAL_SLOTS = 4
MOST_SLOTS = 8
"""A batch of 8 rows gives 2.3 times the tokens of one (SmolLM2, two cores) and more rows hardly more: they would only
make everybody slower."""
USUAL_CONTEXT_TOKENS = 4096
"""Few conversations get longer, whatever the model could hold; the cache grows by need."""
MOST_PREFIX_BYTES = 1 << 30


def slots_for(
    wanted: int | None, *, most_rows: int, bytes_per_token: int, context_tokens: int, available_bytes: int
) -> int:
    """Requests that run together, at least 1.

    Unless `wanted` says how many: four, if usual conversations of that many fit into half of the memory that is
    available now (the other half is for everybody else on this machine), and fewer otherwise.
    """
    if wanted is not None:
        return max(1, min(wanted, most_rows, MOST_SLOTS))
    each_bytes = max(1, bytes_per_token * min(context_tokens, USUAL_CONTEXT_TOKENS))
    return max(1, min(USUAL_SLOTS, most_rows, available_bytes // 2 // each_bytes))


def prefix_bytes_for(wanted: int | None, *, total_bytes: int) -> int:
    """Bytes for texts of ended requests: a tenth of the machine's memory and at most 1 GiB, unless `wanted` says."""
    return min(MOST_PREFIX_BYTES, total_bytes // 10) if wanted is None else max(0, wanted)

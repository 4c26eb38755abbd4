"""What crosses the room's borders: what a loaded bundle is, what a round took, what is reported."""

from dataclasses import dataclass

from device_agent.bench.plan import Decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A bundle that was just loaded, in a process that had done nothing before.

    `int8_from_tokens` is from which length on prompts are read with INT8 weights; None: never.
    """

    name: str
    version: str
    threads: int
    context_tokens: int
    most_rows: int
    weight_bytes_per_token: int
    load_s: float
    load_cpu_s: float
    rss_start_bytes: int
    rss_loaded_bytes: int
    int8_from_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: seconds, and joules where the machine counts them."""

    seconds: float
    joules: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One pass through a plan, in the plan's order. `rss_bytes` is taken with its longest single text in the cache."""

    prompts: tuple[Sample, ...]
    decodes: tuple[Sample, ...]
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSpeed:
    """Medians. The first token comes when the prompt is read."""

    tokens: int
    tokens_per_s: float
    first_token_s: float
    joules_per_token: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSpeed:
    """Medians. `tokens_per_s` is of all rows together; `bandwidth_share` of one row, the rest is None."""

    case: Decode
    tokens_per_s: float
    bandwidth_share: float | None
    joules_per_token: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """How many times as fast a bundle is as the one it is compared with: medians over rounds taken in turn."""

    prompts: tuple[float, ...]
    decodes: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A bundle's speeds.

    `prefill_...`, `decode_...` and `time_to_first_token_s` are those of the first prompt and the first decoding;
    `bandwidth_share` is how much of the memory's read speed the weights of its tokens take up. `rss_bytes` is taken
    with the plan's longest text in the cache; `int8_from_tokens` is as in Facts.
    """

    bundle: str
    model: str
    version: str
    threads: int
    prompt_tokens: int
    decode_tokens: int
    batch: int
    repetitions: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    time_to_first_token_s: float
    load_s: float
    load_cpu_s: float
    rss_bytes: int
    rss_start_bytes: int
    rss_loaded_bytes: int
    joules_per_prompt_token: float | None
    joules_per_decoded_token: float | None
    weight_bytes_per_token: int
    memory_read_bytes_per_s: float
    memory_copy_bytes_per_s: float
    bandwidth_share: float | None
    prompts: tuple[PromptSpeed, ...]
    decodes: tuple[DecodeSpeed, ...]
    int8_from_tokens: int | None = None
    ratios: Ratios | None = None

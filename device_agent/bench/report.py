"""Rounds to what is reported: medians, and ratios round by round."""

from collections.abc import Sequence
from statistics import median

from device_agent.bench.bandwidth import Bandwidth
from device_agent.bench.plan import Plan
from device_agent.bench.records import DecodeSpeed, Facts, PromptSpeed, Ratios, Report, Round, Sample
from device_agent.bench.turns import Measured, Results


def reports(results: Results) -> list[Report]:
    """One for each bundle, in their order; all but the first have ratios: how many times as fast the first one is."""
    first = results.measured[0]
    return [
        _report(results, each, None if each is first else _ratios(first.rounds, each.rounds))
        for each in results.measured
    ]


def _report(results: Results, measured: Measured, ratios: Ratios | None) -> Report:
    plan, facts, bandwidth = results.plan, measured.facts, results.bandwidth
    prompts = _prompts(plan, measured.rounds)
    decodes = _decodes(plan, measured.rounds, facts, bandwidth)
    return Report(
        bundle=str(measured.folder),
        model=facts.name,
        version=facts.version,
        threads=facts.threads,
        prompt_tokens=plan.prompts[0],
        decode_tokens=plan.decode_tokens,
        batch=plan.decodes[0].rows,
        repetitions=len(measured.rounds),
        prefill_tokens_per_s=prompts[0].tokens_per_s,
        decode_tokens_per_s=decodes[0].tokens_per_s,
        time_to_first_token_s=prompts[0].first_token_s,
        load_s=facts.load_s,
        load_cpu_s=facts.load_cpu_s,
        rss_bytes=measured.rounds[-1].rss_bytes,
        rss_start_bytes=facts.rss_start_bytes,
        rss_loaded_bytes=facts.rss_loaded_bytes,
        joules_per_prompt_token=prompts[0].joules_per_token,
        joules_per_decoded_token=decodes[0].joules_per_token,
        weight_bytes_per_token=facts.weight_bytes_per_token,
        memory_read_bytes_per_s=bandwidth.read_bytes_per_s,
        memory_copy_bytes_per_s=bandwidth.copy_bytes_per_s,
        bandwidth_share=decodes[0].bandwidth_share,
        prompts=prompts,
        decodes=decodes,
        int8_from_tokens=facts.int8_from_tokens,
        ratios=ratios,
    )


def _prompts(plan: Plan, rounds: Sequence[Round]) -> tuple[PromptSpeed, ...]:
    found = []
    for at, tokens in enumerate(plan.prompts):
        samples = [each.prompts[at] for each in rounds]
        seconds = median(sample.seconds for sample in samples)
        found.append(
            PromptSpeed(
                tokens=tokens,
                tokens_per_s=tokens / seconds,
                first_token_s=seconds,
                joules_per_token=_joules(samples, tokens),
            )
        )
    return tuple(found)


def _decodes(plan: Plan, rounds: Sequence[Round], facts: Facts, bandwidth: Bandwidth) -> tuple[DecodeSpeed, ...]:
    found = []
    for at, case in enumerate(plan.decodes):
        samples = [each.decodes[at] for each in rounds]
        tokens = plan.decode_tokens * case.rows
        speed = tokens / median(sample.seconds for sample in samples)
        share = speed * facts.weight_bytes_per_token / bandwidth.read_bytes_per_s
        found.append(
            DecodeSpeed(
                case=case,
                tokens_per_s=speed,
                bandwidth_share=share if case.rows == 1 else None,
                joules_per_token=_joules(samples, tokens),
            )
        )
    return tuple(found)


def _joules(samples: Sequence[Sample], tokens: int) -> float | None:
    known = [sample.joules for sample in samples if sample.joules is not None]
    return median(known) / tokens if known else None


def _ratios(first: Sequence[Round], other: Sequence[Round]) -> Ratios:
    pairs = list(zip(first, other, strict=True))
    return Ratios(
        prompts=tuple(
            _ratio([(a.prompts[at], b.prompts[at]) for a, b in pairs]) for at in range(len(first[0].prompts))
        ),
        decodes=tuple(
            _ratio([(a.decodes[at], b.decodes[at]) for a, b in pairs]) for at in range(len(first[0].decodes))
        ),
    )


def _ratio(pairs: Sequence[tuple[Sample, Sample]]) -> float:
    return median(b.seconds / a.seconds for a, b in pairs)

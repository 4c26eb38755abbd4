"""Reports as text and as a plot. Nothing here prints or writes."""

from collections.abc import Sequence

from device_agent.bench.records import DecodeSpeed, PromptSpeed, Report
from edgekit.plots import Curve, Panel, panels

Rows = list[tuple[str, str]]


def lines(reports: Sequence[Report]) -> Rows:
    """Title and words of every line: what the first report says, then how the others compare with it."""
    first, others = reports[0], reports[1:]
    found = _speeds(first, others) + _costs(first)
    for other in others:
        found += [("", ""), ("against", f"{other.model} {other.version} ({other.bundle})"), *_costs(other)]
    return found


def _speeds(first: Report, others: Sequence[Report]) -> Rows:
    prompts, decodes = [], []
    for at, prompt in sorted(enumerate(first.prompts), key=lambda item: item[1].tokens):
        beside = [(each.prompts[at].tokens_per_s, each.ratios.prompts[at]) for each in others if each.ratios]
        prompts.append(f"{_speed(prompt.tokens_per_s)} {_prompt(prompt)}{_beside(beside)}")
    for at, decode in sorted(enumerate(first.decodes), key=lambda item: (item[1].case.rows, item[1].case.depth)):
        beside = [(each.decodes[at].tokens_per_s, each.ratios.decodes[at]) for each in others if each.ratios]
        decodes.append(f"{_speed(decode.tokens_per_s)} {_decode(decode)}{_beside(beside)}")
    first_token = f"{first.time_to_first_token_s * 1e3:,.0f} ms ({first.prompt_tokens} tokens)"
    return [*_titled("prompt", prompts), *_titled("decode", decodes), ("first token", first_token)]


def _titled(title: str, words: Sequence[str]) -> Rows:
    """The title stands before the first line only."""
    return [("" if at else title, line) for at, line in enumerate(words)]


def _costs(report: Report) -> Rows:
    memory = f"{report.rss_bytes / 1e6:,.0f} MB resident ({report.rss_loaded_bytes / 1e6:,.0f} MB after loading)"
    read = f"{report.memory_read_bytes_per_s / 1e9:,.1f} GB/s read"
    if report.bandwidth_share is not None:
        read += f"; a token reads {report.weight_bytes_per_token / 1e6:,.0f} MB: {report.bandwidth_share:.0%} of it"
    found = [
        ("load", f"{report.load_s:.2f} s ({report.load_cpu_s:.2f} s of CPU time)"),
        ("memory", memory),
        ("bandwidth", read),
        ("threads", str(report.threads)),
        ("prompts by", _prompt_weights(report)),
    ]
    if report.joules_per_decoded_token is not None:
        found.append(("energy", f"{report.joules_per_decoded_token:.2f} J for a decoded token"))
    return found


def _prompt_weights(report: Report) -> str:
    if report.int8_from_tokens is None:
        return "the decoder's weights"
    return f"INT8 weights, from {report.int8_from_tokens} tokens on"


def _speed(tokens_per_s: float) -> str:
    return f"{tokens_per_s:8,.1f} tokens/s"


def _prompt(prompt: PromptSpeed) -> str:
    return f"({prompt.tokens} tokens)"


def _decode(decode: DecodeSpeed) -> str:
    rows = f", {decode.case.rows} texts together" if decode.case.rows > 1 else ""
    return f"(after {decode.case.depth} tokens{rows})"


def _beside(others: Sequence[tuple[float, float]]) -> str:
    """Another bundle's speed, and how many times as fast the first one is."""
    return "".join(f"  | {speed:,.1f}: {ratio:.2f}x" for speed, ratio in others)


def plot(reports: Sequence[Report]) -> str:
    """SVG: prompts by length, decoding by depth and by rows; a curve for each bundle. Raises ValueError if empty."""
    names = _names(reports)
    kinds = (
        ("Prompt, tokens/s", "tokens in the prompt", [_prompt_points(each) for each in reports]),
        ("Decode, tokens/s", "tokens before", [_depth_points(each) for each in reports]),
        ("Decode together, tokens/s", "texts", [_row_points(each) for each in reports]),
    )
    return panels(
        "Speed by length of the prompt, by depth, and by texts together",
        [Panel(title, axis, tuple(map(Curve, names, found))) for title, axis, found in kinds if any(found)],
    )


def _names(reports: Sequence[Report]) -> list[str]:
    """What to call each bundle: its model, and its folder too where that is not enough."""
    models = [f"{each.model} {each.version}" for each in reports]
    if len(set(models)) == len(models):
        return models
    return [f"{model} ({each.bundle})" for model, each in zip(models, reports, strict=True)]


def _prompt_points(report: Report) -> tuple[tuple[float, float], ...]:
    return tuple((each.tokens, each.tokens_per_s) for each in report.prompts)


def _depth_points(report: Report) -> tuple[tuple[float, float], ...]:
    return tuple((each.case.depth, each.tokens_per_s) for each in report.decodes if each.case.rows == 1)


def _row_points(report: Report) -> tuple[tuple[float, float], ...]:
    """Decodings of the same depth as the first."""
    depth = report.decodes[0].case.depth
    found = tuple((each.case.rows, each.tokens_per_s) for each in report.decodes if each.case.depth == depth)
    return found if len(found) > 1 else ()

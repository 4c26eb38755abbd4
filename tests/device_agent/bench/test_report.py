import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from device_agent.bench import table
from device_agent.bench.bandwidth import Bandwidth
from device_agent.bench.plan import Decode, Plan
from device_agent.bench.records import Facts, Round, Sample
from device_agent.bench.report import reports
from device_agent.bench.turns import Measured, Results

PLAN = Plan(prompts=(100, 20), decodes=(Decode(100), Decode(0), Decode(100, 4)), decode_tokens=10)


def facts(name: str) -> Facts:
    return Facts(
        name=name,
        version="1",
        threads=2,
        context_tokens=2048,
        most_rows=8,
        weight_bytes_per_token=1_000_000,
        load_s=0.5,
        load_cpu_s=0.25,
        rss_start_bytes=10,
        rss_loaded_bytes=20,
    )


def rounds(*prompt_s: float, factor: float = 1.0, joules: float | None = None) -> tuple[Round, ...]:
    return tuple(
        Round(
            prompts=(Sample(seconds, joules), Sample(seconds / 4)),
            decodes=tuple(Sample(factor * seconds / part, joules) for part in (2, 1, 0.5)),
            rss_bytes=at,
        )
        for at, seconds in enumerate(prompt_s)
    )


def results(*found: tuple[Round, ...]) -> Results:
    measured = tuple(Measured(Path(f"m{at}"), facts(f"m{at}"), each) for at, each in enumerate(found))
    return Results(PLAN, Bandwidth(1e8, 2e8, 2), measured)


def test_speeds_are_tokens_by_the_median_of_the_seconds() -> None:
    (found,) = reports(results(rounds(1.0, 2.0, 9.0)))
    assert found.prefill_tokens_per_s == 100 / 2.0
    assert found.time_to_first_token_s == 2.0
    assert found.decode_tokens_per_s == 10 / (2.0 / 2)
    assert [each.tokens_per_s for each in found.prompts] == [50.0, 20 / 0.5]
    assert [each.tokens_per_s for each in found.decodes] == [10.0, 5.0, 40 / 4.0]
    assert (found.prompt_tokens, found.decode_tokens, found.batch, found.repetitions) == (100, 10, 1, 3)
    assert found.rss_bytes == 2


def test_the_share_of_the_bandwidth_is_that_of_the_weights_of_single_tokens() -> None:
    (found,) = reports(results(rounds(2.0)))
    assert found.bandwidth_share == pytest.approx(10.0 * 1_000_000 / 1e8)
    assert [each.bandwidth_share for each in found.decodes] == [pytest.approx(0.1), pytest.approx(0.05), None]


def test_joules_are_by_token_of_all_texts_and_none_where_there_is_no_counter() -> None:
    (known,) = reports(results(rounds(1.0, 1.0, joules=20.0)))
    assert (known.joules_per_prompt_token, known.joules_per_decoded_token) == (0.2, 2.0)
    assert known.decodes[2].joules_per_token == 0.5
    assert known.prompts[1].joules_per_token is None
    (unknown,) = reports(results(rounds(1.0)))
    assert (unknown.joules_per_prompt_token, unknown.joules_per_decoded_token) == (None, None)


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was ten times slower in one round, for both: medians apart would say something else.
    first, other = reports(results(rounds(1.0, 10.0, 1.2), rounds(2.0, 20.0, 2.4, factor=1.5)))
    assert first.ratios is None
    assert other.ratios is not None
    assert list(other.ratios.prompts) == pytest.approx([2.0] * 2)
    assert list(other.ratios.decodes) == pytest.approx([3.0] * 3)


def test_the_table_goes_by_length_and_names_who_is_compared() -> None:
    lines = table.lines(reports(results(rounds(2.0), rounds(4.0))))
    text = [f"{title}|{words.strip()}" for title, words in lines]
    assert text[:2] == ["prompt|40.0 tokens/s (20 tokens)  | 20.0: 2.00x", "|50.0 tokens/s (100 tokens)  | 25.0: 2.00x"]
    assert text[2].startswith("decode|5.0 tokens/s (after 0 tokens)")
    assert "(after 100 tokens, 4 texts together)" in text[4]
    assert "against|m1 1 (m1)" in text
    assert "bandwidth|0.1 GB/s read; a token reads 1 MB: 10% of it" in text
    assert not [line for line in text if line.startswith("energy")]


def test_the_table_shows_joules_where_they_are_known() -> None:
    lines = dict(table.lines(reports(results(rounds(1.0, joules=20.0)))))
    assert lines["energy"] == "2.00 J for a decoded token"


def test_the_plot_has_a_panel_for_each_axis_and_a_colour_for_each_bundle() -> None:
    drawn = ET.fromstring(table.plot(reports(results(rounds(2.0), rounds(4.0)))))
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    for words in ("Prompt, tokens/s", "Decode, tokens/s", "Decode together, tokens/s", "m0 1", "m1 1"):
        assert words in texts
    colours = [each.attrib["stroke"] for each in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(colours) == 6
    assert len(set(colours)) == 2

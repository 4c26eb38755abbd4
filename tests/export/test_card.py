from pathlib import Path

import msgspec
import pytest

from edgekit import contract
from edgekit.quant import FLOAT, QuantSpec
from export.card import Stored, model_card, stored
from export.quantize.plan import PlannedMatrix
from tests import tiny
from tests.export.exports import export_tiny


@pytest.mark.parametrize(
    ("config", "contexts"), [(tiny.DEFAULT, []), (tiny.Config(context=4096), ["512", "2,048"])], ids=["short", "long"]
)
def test_the_card_says_what_a_person_asks(config: tiny.Config, contexts: list[str], tmp_path: Path) -> None:
    manifest = export_tiny(tiny.write_gguf(tmp_path / "tiny.gguf", config), tmp_path / "out", "int8")
    card = (tmp_path / "out" / contract.CARD_FILE).read_text(encoding="utf-8")
    assert card.startswith("# tiny 1\n")
    for fact in ("gguf `tiny.gguf`", "apache-2.0", "2 layers", f"{config.context:,} tokens", "4 heads over 2"):
        assert fact in card
    assert "8 x int8-b32" in card
    assert f"{manifest.quality['kl']:.4f} nats" in card
    assert f"{manifest.quality['same_top_token']:.1%}" in card
    assert f"{manifest.requires.weight_bytes / 1e6:,.1f} MB" in card
    memory = card.partition("## Memory")[2]
    assert [line.split("|")[1].strip() for line in memory.splitlines() if line.endswith("MB |")] == contexts
    assert "## Speed" in card


def test_a_source_without_a_licence_is_not_given_one(tmp_path: Path) -> None:
    manifest = export_tiny(tiny.write_hf_folder(tmp_path / "tiny"), tmp_path / "out")
    assert manifest.source.licence is None
    assert "not stated by the source" in (tmp_path / "out" / contract.CARD_FILE).read_text(encoding="utf-8")


def matrix(spec: QuantSpec, method: str, rows: int = 100) -> PlannedMatrix:
    return PlannedMatrix("m", (), rows, 64, spec, method)  # type: ignore[arg-type]


def test_matrices_are_counted_by_how_they_are_stored() -> None:
    small = QuantSpec(4, 32)
    plan = [matrix(small, "round"), matrix(FLOAT, "float"), matrix(small, "keep", 10), matrix(small, "round", 20)]
    assert stored(plan) == [
        Stored("fp32", "float", 1, 100 * 64 * 4),
        Stored("int4-b32", "round", 2, 120 * 2 * (16 + 4)),
        Stored("int4-b32", "keep", 1, 10 * 2 * (16 + 4)),
    ]


def test_what_was_measured_is_told_and_nothing_else(tmp_path: Path) -> None:
    manifest = export_tiny(tiny.write_hf_folder(tmp_path / "tiny"), tmp_path / "out")
    quality = {"decode_tokens_per_s": 118.04, "prefill_tokens_per_s": 539.0, "perplexity": 18.5514, "unheard_of": 1.0}
    card = model_card(msgspec.structs.replace(manifest, quality=quality), [matrix(FLOAT, "float")])
    assert "| perplexity | 18.551 |" in card
    assert "| writing an answer | 118.0 tokens/s |" in card
    assert card.index("| reading a prompt | 539 tokens/s |") < card.index("| writing an answer |")
    assert "nats" not in card
    assert "unheard_of" not in card
    nothing = model_card(msgspec.structs.replace(manifest, quality={}), [])
    assert "Measured" not in nothing
    assert "## Speed" not in nothing


def test_words_of_a_checkpoint_stay_in_their_cell(tmp_path: Path) -> None:
    manifest = export_tiny(tiny.write_hf_folder(tmp_path / "tiny"), tmp_path / "out")
    source = msgspec.structs.replace(manifest.source, licence="mine | yours\n\n# Trust me")
    card = model_card(msgspec.structs.replace(manifest, source=source), [])
    assert r"| licence | mine \| yours # Trust me |" in card.splitlines()

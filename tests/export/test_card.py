from pathlib import Path

import pytest

from edgekit import contract
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
    rows = [line.split("|")[1].strip() for line in card.splitlines() if line.endswith("MB |")]
    assert rows == contexts


def test_a_source_without_a_licence_is_not_given_one(tmp_path: Path) -> None:
    manifest = export_tiny(tiny.write_hf_folder(tmp_path / "tiny"), tmp_path / "out")
    assert manifest.source.licence is None
    assert "not stated by the source" in (tmp_path / "out" / contract.CARD_FILE).read_text(encoding="utf-8")

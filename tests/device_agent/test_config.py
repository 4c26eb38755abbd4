"""From the agent's settings to those of its rooms."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from device_agent.config import config_of
from device_agent.engine.records import EngineSettings
from edgekit.errors import UsageError
from edgekit.settings import EngineOptions, ModelsSettings, ServerSettings, Settings, UsageSettings


def test_the_defaults_of_the_engine_are_the_engines_own(tmp_path: Path) -> None:
    assert config_of(Settings(), tmp_path).opening.engine == EngineSettings()
    shared = {field.name for field in fields(EngineSettings)} & {field.name for field in fields(EngineOptions)}
    assert {field.name for field in fields(EngineSettings)} - shared == {"idle_unload_s", "guess"}


@pytest.mark.parametrize(
    ("draft", "guess", "folder"), [("text", True, None), ("off", False, None), ("small", True, Path("small"))]
)
def test_what_guesses_is_one_setting(tmp_path: Path, draft: str, guess: bool, folder: Path | None) -> None:
    engine = config_of(Settings(engine=EngineOptions(draft=draft)), tmp_path).opening.engine
    assert (engine.guess, engine.draft) == (guess, folder)


def test_each_room_gets_what_is_its_own(tmp_path: Path) -> None:
    settings = Settings(
        server=ServerSettings(
            host="192.0.2.1",
            names=("Kiosk",),
            auth="required",
            cors=("https://chat.example.org/",),
            lenient=True,
            body_limit=5,
            drain_s=1.5,
        ),
        models=ModelsSettings(max_loaded_bytes=7, idle_unload_s=8.0, loading_wait_s=9.0),
        usage=UsageSettings(retention_days=3, keep_texts=True),
        engine=EngineOptions(slots=2),
    )
    config = config_of(settings, tmp_path)
    assert config.access.auth == "required"
    assert config.http.allowed_hosts == {"192.0.2.1", "kiosk"}
    assert config.http.allowed_origins == {"https://chat.example.org"}
    assert (config.http.lenient, config.http.body_limit_bytes, config.http.drain_s) == (True, 5, 1.5)
    shelf = config.shelf
    assert (shelf.slots, shelf.max_loaded_bytes, shelf.idle_unload_s, shelf.loading_wait_s) == (2, 7, 8.0, 9.0)
    assert (config.ledger.retention_days, config.ledger.keep_texts, config.ledger.prices) == (3, True, None)
    assert config.store == tmp_path / "models"
    assert config.opening.state == tmp_path


def test_prices_strategies_and_a_prompt_are_read_from_their_files(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text('currency = "EUR"\n[models."*"]\ninput = 1\noutput = 2\n')
    (tmp_path / "warm.txt").write_text("Be brief.")
    config = config_of(Settings(engine=EngineOptions(warm=str(tmp_path / "warm.txt"))), tmp_path)
    assert config.ledger.prices is not None
    assert config.ledger.prices.currency == "EUR"
    assert config.opening.system == "Be brief."
    assert "direct" in config.strategies.names


@pytest.mark.parametrize(
    "wrong",
    [
        Settings(usage=UsageSettings(prices="nowhere.toml")),
        Settings(engine=EngineOptions(warm="nowhere.txt")),
        Settings(server=ServerSettings(cors=("*",))),
        Settings(server=ServerSettings(tls_cert="cert.pem")),
    ],
    ids=["prices", "warm", "origin", "half a certificate"],
)
def test_what_cannot_be_used_is_wrong_usage(tmp_path: Path, wrong: Settings) -> None:
    with pytest.raises(UsageError):
        config_of(wrong, tmp_path)


def test_a_prompt_that_is_far_too_long_or_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "warm.txt"
    for raw in (b"x" * ((1 << 20) + 1), b"\xff"):
        path.write_bytes(raw)
        with pytest.raises(UsageError):
            config_of(replace(Settings(), engine=EngineOptions(warm=str(path))), tmp_path)

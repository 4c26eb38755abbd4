"""Settings from a file, the environment and the command line; and every way to get them wrong."""

import dataclasses
import tomllib
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import settings as room
from edgekit.errors import UsageError
from edgekit.settings import EngineOptions, ServerSettings, Settings, parse_size, read_settings, to_toml


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_what_nobody_said_has_its_default(config: Path) -> None:
    assert read_settings(config, {}) == Settings()


def test_later_places_count_more(config: Path) -> None:
    config.write_text('[server]\nhost = "10.0.0.1"\nport = 1\n[engine]\nthreads = 1\n[log]\nformat = "json"\n')
    environment = {"EDGEKIT_SERVER_PORT": "2", "EDGEKIT_ENGINE_THREADS": "2", "EDGEKIT_HOME": "/x", "PORT": "9"}
    options = {("engine", "threads"): 3, ("engine", "slots"): None}
    found = read_settings(config, environment, options)
    assert found.server == ServerSettings(host="10.0.0.1", port=2)
    assert found.engine == EngineOptions(threads=3)
    assert found.log.format == "json"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("EDGEKIT_SERVER_LENIENT", "true", True),
        ("EDGEKIT_SERVER_LENIENT", "0", False),
        ("EDGEKIT_SERVER_CORS", "https://a.org, https://b.org,", ("https://a.org", "https://b.org")),
        ("EDGEKIT_SERVER_CORS", "", ()),
        ("EDGEKIT_SERVER_BODY_LIMIT", "1.5MB", 1_500_000),
        ("EDGEKIT_SERVER_TLS_CERT", "/a/b.pem", "/a/b.pem"),
        ("EDGEKIT_MODELS_IDLE_UNLOAD_S", "2.5", 2.5),
        ("EDGEKIT_MODELS_MAX_LOADED_BYTES", "2G", 2_000_000_000),
        ("EDGEKIT_ENGINE_DUTY", "0.5", 0.5),
    ],
)
def test_text_of_the_environment_stands_for_what_is_wanted(config: Path, name: str, text: str, value: object) -> None:
    _, section, key = name.lower().split("_", 2)
    assert getattr(getattr(read_settings(config, {name: text}), section), key) == value


def test_sizes_of_a_file_may_have_units(config: Path) -> None:
    config.write_text('[models]\nmax_loaded_bytes = "3GB"\n[engine]\nprefix_bytes = 0\n')
    found = read_settings(config, {})
    assert found.models.max_loaded_bytes == 3_000_000_000
    assert found.engine.prefix_bytes == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", "server.prot is no setting. Did you mean port?"),
        ("[sever]\nport = 1", "[sever] is no section. Did you mean server?"),
        ("[zzz]", "[zzz] is no section. There are: server, engine, models, usage, sync, log."),
        ("server = 1", "server must be a section"),
        ("port = 1", "[port] is no section"),
        ("[server]\nport = 65536", "server.port is 65536: expected `int` <= 65535"),
        ("[server]\nport = -1", "server.port is -1: expected `int` >= 0"),
        ('[server]\nport = "80"', "server.port is '80': expected `int`, got `str`"),
        ("[server]\nport = true", "server.port is True: expected `int`, got `bool`"),
        ("[server]\nhost = 1", "server.host is 1: expected `str`, got `int`"),
        ('[server]\nauth = "none"', "server.auth is 'none': invalid enum value 'none'"),
        ('[server]\ncors = "https://a.org"', "server.cors is 'https://a.org': expected `array`, got `str`"),
        ("[server]\ncors = [1]", "server.cors is [1]: expected `str`, got `int`"),
        ("[server]\ndrain_s = nan", "server.drain_s is nan"),
        ("[server]\ndrain_s = inf", "server.drain_s is inf"),
        ('[server]\nbody_limit = "big"', "server.body_limit must be a size such as 92MB or 1.5GB, not 'big'"),
        ("[engine]\nduty = 0", "engine.duty is 0"),
        ("[engine]\nslots = 9", "engine.slots is 9"),
        ("[engine.threads]\na = 1", "engine.threads is {'a': 1}: expected `int | null`, got `object`"),
        ("[usage]\nretention_days = 0", "usage.retention_days is 0"),
        ("[log]\nlevel = 10", "log.level is 10"),
        ("[server", "is not TOML"),
        ("[server]\nport = 1\nport = 2", "is not TOML"),
        ("a = " + "[" * 10_000, "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(config: Path, text: str, said: str) -> None:
    config.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_settings(config, {})
    assert said in str(refused.value)
    assert str(config) in str(refused.value)
    assert len(str(refused.value)) < len(str(config)) + 300


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EDGEKIT_SERVER_PROT", "1", "EDGEKIT_SERVER_PROT is no setting. Did you mean EDGEKIT_SERVER_PORT?"),
        ("EDGEKIT_SERVER_PORT", "many", "EDGEKIT_SERVER_PORT: server.port is 'many': expected `int`, got `str`"),
        ("EDGEKIT_SERVER_LENIENT", "maybe", "EDGEKIT_SERVER_LENIENT: server.lenient is 'maybe'"),
        ("EDGEKIT_MODELS_MAX_LOADED_BYTES", "1 elephant", "must be a size"),
        ("EDGEKIT_ENGINE_DUTY", "nan", "engine.duty"),
    ],
)
def test_a_mistake_in_the_environment_is_named(config: Path, name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_settings(config, {name: value})
    assert said in str(refused.value)


def test_a_file_that_was_named_must_be_there(config: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        read_settings(config, {}, required=True)
    config.mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        read_settings(config, {})


def test_a_file_that_is_no_text_or_far_too_large_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_settings(config, {})
    monkeypatch.setattr(room, "MAX_CONFIG_BYTES", 10)
    config.write_text("# a long comment")
    with pytest.raises(UsageError, match="larger than 10 bytes"):
        read_settings(config, {})


def test_the_effective_settings_are_a_file_that_says_the_same(config: Path) -> None:
    said = Settings(
        server=ServerSettings(cors=("https://a.org", 'a "quoted" \\ one\n\x7f\x00é🙂'), tls_cert="c", port=0),
        engine=EngineOptions(threads=2, duty=0.25),
    )
    text = to_toml(said)
    config.write_text(text, encoding="utf-8")
    assert read_settings(config, {}) == said
    assert "# slots =" in text.splitlines()
    assert list(tomllib.loads(text)) == list(room.SECTIONS)


@given(st.data())
def test_any_settings_come_back_from_their_toml(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = st.text(st.characters(exclude_categories=["Cs"]))
    server = ServerSettings(host=data.draw(text), cors=tuple(data.draw(st.lists(text))), tls_key=data.draw(text))
    config = tmp_path_factory.mktemp("any") / "config.toml"
    config.write_bytes(to_toml(Settings(server=server)).encode())
    assert read_settings(config, {}).server == server


def test_every_setting_can_be_made_in_the_environment() -> None:
    for section, kind in room.SECTIONS.items():
        assert "_" not in section  # or its variables could not be told apart
        for field in dataclasses.fields(kind):
            assert field.name in typing.get_type_hints(kind)


@pytest.mark.parametrize(
    ("text", "size"),
    [("91700000", 91_700_000), ("91.7MB", 91_700_000), ("1.5g", 1_500_000_000), ("2 K", 2_000), ("1T", 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1e9", "1 EB", "1" * 30, "٣", "1\n"])
def test_no_sizes(text: str) -> None:
    assert parse_size(text) is None

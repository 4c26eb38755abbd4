"""From the settings of the whole agent to those of each room. Reads the few files that settings name; no more."""

from dataclasses import dataclass, replace
from pathlib import Path

from device_agent import pages
from device_agent.access.settings import AccessSettings
from device_agent.engine.records import EngineSettings
from device_agent.http.settings import HttpSettings
from device_agent.ledger import prices
from device_agent.ledger.settings import LedgerSettings
from device_agent.shelf import ShelfSettings
from device_agent.shelf.opening import Opening
from device_agent.sync.records import LinkSettings
from device_agent.sync.settings import link_settings
from edgekit import strategies
from edgekit.errors import UsageError
from edgekit.settings import EngineOptions, ServerSettings, Settings, UsageSettings
from edgekit.strategies import Strategies

MODELS_FOLDER = "models"
"""Of the agent's folder: the store, unless another one is named."""

STRATEGIES_FILE = "strategies.toml"
"""Of the agent's folder: an owner's own ways of reasoning, if there are any."""

MOST_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of each room."""

    access: AccessSettings
    http: HttpSettings
    ledger: LedgerSettings
    opening: Opening
    shelf: ShelfSettings
    store: Path
    link: LinkSettings
    strategies: Strategies


def config_of(settings: Settings, home: Path) -> Config:
    """Everything that rooms are built with. Raises UsageError."""
    return Config(
        access=AccessSettings(auth=settings.server.auth),
        http=_http(settings.server),
        ledger=_ledger(settings.usage, home),
        opening=_opening(settings.engine, home),
        shelf=ShelfSettings(
            slots=settings.engine.slots,
            max_loaded_bytes=settings.models.max_loaded_bytes,
            idle_unload_s=settings.models.idle_unload_s,
            loading_wait_s=settings.models.loading_wait_s,
        ),
        store=store_of(settings, home),
        link=link_settings(settings.sync),
        strategies=strategies.load(home / STRATEGIES_FILE),
    )


def store_of(settings: Settings, home: Path) -> Path:
    """The bundle, or the folder of bundles, that is served."""
    return home / MODELS_FOLDER if settings.models.path is None else Path(settings.models.path)


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given)


def _http(server: ServerSettings) -> HttpSettings:
    found = HttpSettings.listening_on(
        server.host,
        names=server.names,
        origins=server.cors,
        tls_cert=_path(server.tls_cert),
        tls_key=_path(server.tls_key),
    )
    return replace(found, lenient=server.lenient, body_limit_bytes=server.body_limit, drain_s=server.drain_s)


def _ledger(usage: UsageSettings, home: Path) -> LedgerSettings:
    """With the table of prices that is named, or the one of the agent's folder if there is one."""
    found = prices.load(home / prices.FILE if usage.prices is None else Path(usage.prices))
    if found is None and usage.prices is not None:
        raise UsageError(f"{usage.prices}: there is no such file.")
    return LedgerSettings(keep_texts=usage.keep_texts, retention_days=usage.retention_days, prices=found)


def _opening(engine: EngineOptions, home: Path) -> Opening:
    return Opening(
        engine=EngineSettings(
            threads=engine.threads,
            queue_limit=engine.queue_limit,
            slots=engine.slots,
            prefix_bytes=engine.prefix_bytes,
            chunk_tokens=engine.chunk_tokens,
            stall=engine.stall,
            duty=engine.duty,
            guess=engine.draft != "off",
            draft=None if engine.draft in ("text", "off") else Path(engine.draft),
            prefill=engine.prefill,
        ),
        state=home,
        system=None if engine.warm is None else text_of(Path(engine.warm)),
        after=pages.gather_beside if engine.huge_pages else None,
    )


def text_of(path: Path) -> str:
    """A text that a setting names. Raises UsageError."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MOST_TEXT_BYTES + 1)
        if len(raw) > MOST_TEXT_BYTES:
            raise UsageError(f"{path} is larger than {MOST_TEXT_BYTES:,} bytes.")
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text: {error}") from error

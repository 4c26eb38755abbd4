"""The agent's settings: a TOML file, then the environment, then the command line, read once into frozen records.

`EDGEKIT_HOME/config.toml` (or another file), `EDGEKIT_SECTION_KEY` in the environment and options of `edgekit serve`
say the same things; the later one counts. What nobody said has the default below. A name that is not below is an
error that says which one may have been meant: a setting that is silently ignored is found out when it matters.
"""

import dataclasses
import difflib
import json
import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgekit.errors import UsageError

CONFIG_FILE = "config.toml"
"""Of the agent's folder."""

MAX_CONFIG_BYTES = 1 << 20
PREFIX = "EDGEKIT_"

Seconds = Annotated[float, msgspec.Meta(ge=0, le=10 * 365 * 86_400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Bytes = Annotated[int, msgspec.Meta(ge=0, lt=1 << 60)]
"""Also as text with a unit: "1.5GB"."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where and how the agent listens.

    With `auth` "local", programs on this machine need no key to use models; with "required" everybody does. Pages of
    the origins in `cors` may use it from a browser, and requests may come to it under the further `names`. `lenient`
    drops parameters of requests that it does not know instead of refusing them. A request's body has `body_limit` bytes
    at most; running ones have `drain_s` to end when the agent is told to stop.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    names: tuple[str, ...] = ()
    auth: Literal["local", "required"] = "local"
    cors: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    lenient: bool = False
    body_limit: Bytes = 4 << 20
    drain_s: Seconds = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How a model shares the machine; see `EngineSettings` in device_agent/engine/records.py, which has the same names.

    `draft` is "text", "off", or the folder of a smaller bundle that guesses too. `warm` is a file with a system prompt
    that is read ahead. `huge_pages` moves weights into larger pages once a model is loaded.
    """

    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    queue_limit: Count = 16
    slots: Annotated[int, msgspec.Meta(ge=1, le=8)] | None = None
    prefix_bytes: Bytes | None = None
    chunk_tokens: Count = 256
    stall: Annotated[float, msgspec.Meta(ge=1, le=1_000)] = 2.0
    duty: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    prefill: Literal["auto", "int4", "int8"] = "auto"
    draft: str = "text"
    warm: str | None = None
    huge_pages: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelsSettings:
    """What is served: `path` is a bundle or a folder of bundles (default: `models` in the agent's folder).

    `active` answers until somebody makes another one active. Loaded models take `max_loaded_bytes` at most (default: a
    share of the memory that is free), and are closed after `idle_unload_s` without use (default: never). A request
    waits `loading_wait_s` for its model to be loaded. A `lazy` agent loads nothing before it is asked.
    """

    path: str | None = None
    active: str | None = None
    max_loaded_bytes: Bytes | None = None
    idle_unload_s: Seconds | None = None
    loading_wait_s: Seconds = 120.0
    lazy: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UsageSettings:
    """What is kept of requests: numbers of each for `retention_days`; texts only with `keep_texts`.

    `prices` is a file with a table of prices, see `edgekit usage --help`.
    """

    retention_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] = 400
    keep_texts: bool = False
    prices: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """How the agent keeps its models up to date; nothing happens on a device that was never enrolled.

    `repositories`, `channels`, `labels` ("site=lyon") and `report` replace those of the provisioning file. A look every
    `interval_s`, 0 for none; fetching at `most_bytes_per_s`, in `windows` of the local day ("22:00-06:00"), and with
    `reserve_bytes` of the disk left free. A mirror that stays under `least_bytes_per_s` for a minute is given up.
    """

    repositories: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    report: str | None = None
    interval_s: Seconds = 3600.0
    windows: tuple[str, ...] = ()
    most_bytes_per_s: Bytes | None = None
    least_bytes_per_s: Bytes = 1024
    reserve_bytes: Bytes = 256 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What goes to standard error: lines for people, or one JSON object a line."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "warning"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of it."""

    server: ServerSettings = ServerSettings()
    engine: EngineOptions = EngineOptions()
    models: ModelsSettings = ModelsSettings()
    usage: UsageSettings = UsageSettings()
    sync: SyncSettings = SyncSettings()
    log: LogSettings = LogSettings()


SECTIONS: Mapping[str, type] = {field.name: type(field.default) for field in dataclasses.fields(Settings)}

Options = Mapping[tuple[str, str], object]
"""Values by section and key, as the command line gives them; None is no value."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Said:
    """A value as it was given, and where; `is_text` if it may stand for a number or for true."""

    value: object
    where: str
    is_text: bool = False


_Everything = dict[tuple[str, str], _Said]


def read_settings(
    path: Path, environment: Mapping[str, str], options: Options | None = None, *, required: bool = False
) -> Settings:
    """Settings of a file, which need not be there unless it is `required`, the environment and the command line.

    Raises UsageError, which names the setting and where it was made.
    """
    said = _in_file(_text_of(path, required=required), str(path)) | _in_environment(environment)
    for at, value in (options or {}).items():
        if value is not None:
            said[at] = _Said(str(value) if isinstance(value, Path) else value, "the command line")
    sections = {
        name: kind(
            **{key: _value(f"{name}.{key}", kinds[key], said[name, key]) for key in kinds if (name, key) in said}
        )
        for name, kind in SECTIONS.items()
        for kinds in [_keys(kind)]
    }
    return Settings(**sections)


def to_toml(settings: Settings) -> str:
    """Every setting as it is in effect; those without a value are comments."""
    lines: list[str] = []
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for key, value in dataclasses.asdict(getattr(settings, section)).items():
            lines.append(f"# {key} =" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines[1:]) + "\n"


def parse_size(text: str) -> int | None:
    """Bytes of "91700000", "91.7MB" or "1.5G"; None for no size."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) *([KMGT]?)B?", text, re.IGNORECASE | re.ASCII)
    return int(float(match[1]) * _UNITS[match[2].upper()]) if match else None


# --- where settings come from -----------------------------------------------------------------


def _text_of(path: Path, *, required: bool) -> str:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError as error:
        if required:
            raise UsageError(f"{path}: there is no such file.") from error
        return ""
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise UsageError(f"{path} is larger than {MAX_CONFIG_BYTES:,} bytes.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error


def _in_file(text: str, path: str) -> _Everything:
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    said: _Everything = {}
    for section, table in found.items():
        _known(section, SECTIONS, f"[{section[:50]}]", path, kind="section")
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {section} must be a section, [{section}].")
        for key, value in table.items():
            _known(key, _keys(SECTIONS[section]), f"{section}.{key[:50]}", path)
            said[section, key] = _Said(value, path)
    return said


def _in_environment(environment: Mapping[str, str]) -> _Everything:
    """Variables whose name begins with a section's; others, such as EDGEKIT_HOME, are no settings."""
    said: _Everything = {}
    for name, value in environment.items():
        section, _, key = name.removeprefix(PREFIX).lower().partition("_")
        if name.startswith(PREFIX) and section in SECTIONS and key:
            keys = _keys(SECTIONS[section])
            _known(key, keys, name, "the environment", variables_of=section)
            said[section, key] = _Said(_listed(value) if _is_list(keys[key]) else value, name, is_text=True)
    return said


def _known(
    name: str, known: Mapping[str, object], shown: str, where: str, *, kind: str = "setting", variables_of: str = ""
) -> None:
    """Raises UsageError for a name that nobody knows, with the one that may be meant."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = "".join(f"{PREFIX}{variables_of}_{word}".upper() if variables_of else word for word in near)
    hint = f"Did you mean {meant}?" if meant else f"There are: {', '.join(known)}."
    raise UsageError(f"{where}: {shown} is no {kind}. {hint}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


# --- what they must be ------------------------------------------------------------------------


def _keys(section: type) -> Mapping[str, Any]:
    return typing.get_type_hints(section, include_extras=True)


def _value(name: str, kind: Any, said: _Said) -> object:  # noqa: ANN401 - a type, or what typing makes of several
    """The value as the record wants it. Raises UsageError."""
    value = said.value
    if isinstance(value, str) and Bytes in (kind, *typing.get_args(kind)):
        value = parse_size(value)
        if value is None:
            raise UsageError(f"{said.where}: {name} must be a size such as 92MB or 1.5GB, not {_shown(said.value)}.")
    try:
        return typing.cast("object", msgspec.convert(value, kind, strict=not said.is_text))
    except msgspec.ValidationError as error:
        problem = str(error)
        raise UsageError(f"{said.where}: {name} is {_shown(value)}: {problem[:1].lower()}{problem[1:]}.") from error


def _is_list(kind: object) -> bool:
    return typing.get_origin(kind) is tuple


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _toml(value: object) -> str:
    """A value of TOML: JSON's text is a TOML string, but for DEL."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)

"""Ways of reasoning before an answer: data, and which messages each phase consists of.

Small models gain from being told how to work on a question (Mitra et al. 2023, "Orca 2"). A strategy with a reasoning
prompt has two phases: the model first writes its reasoning, then gets it back in the conversation and writes the
answer. The second prompt begins with the first and what was written, so a prefix cache has read nearly all of it.
The agent and evaluation use the same functions; nothing here calls a model.

`strategies.toml` beside this file is the packaged set; a user's own file replaces entries or adds some.
"""

import difflib
import functools
import importlib.resources
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec

from edgekit.chat import Message
from edgekit.errors import InvalidRequest, UsageError

AUTO = "auto"
"""Names no strategy: one of the others is chosen for each request."""
FILE_NAME = "strategies.toml"
PARAMETER = "edgekit.strategy"
MAX_FILE_BYTES = 256 << 10
MAX_STRATEGIES = 32
MAX_CHOOSING_TOKENS = 16
"""Enough for the part of a name that tells it from the others; what was written of it then says which."""

_Entry = TypeVar("_Entry", "Strategy", "Auto")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_Line = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Prompt = Annotated[str, msgspec.Meta(max_length=8_000)]


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """What is said to the model, and when. See the head of strategies.toml for the fields."""

    description: _Line
    system: _Prompt = ""
    reasoning: _Prompt = ""
    answer: _Prompt = ""
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.7
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1024

    @property
    def reasons(self) -> bool:
        """Whether it has two phases."""
        return bool(self.reasoning)


class Auto(msgspec.Struct, frozen=True, kw_only=True):
    """How one of the strategies is chosen: `question` is followed by their names and descriptions."""

    description: _Line
    question: Annotated[str, msgspec.Meta(min_length=1, max_length=8_000)]


@dataclass(frozen=True, slots=True)
class Strategies:
    """All that a request may name."""

    named: Mapping[str, Strategy]
    auto: Auto

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may ask for, "auto" last."""
        return (*self.named, AUTO)

    def check(self, name: str) -> None:
        """Raises InvalidRequest, which lists the names, for one that is none."""
        if name not in self.names:
            near = difflib.get_close_matches(name[:100], self.names, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(self.names)
            raise InvalidRequest(f"There is no strategy {name[:100]!r}.{meant} Known are: {known}.", param=PARAMETER)

    def chosen(self, written: str) -> str:
        """The name that a model wrote, or began to write; the first one if it did neither."""
        begun = written.strip()
        if begun in self.named:
            return begun
        return next((name for name in self.named if begun and name.startswith(begun)), next(iter(self.named)))


# --- the phases -----------------------------------------------------------------------------


def reasoning_messages(messages: Sequence[Message], strategy: Strategy, *, late: bool = False) -> tuple[Message, ...]:
    """The first phase: the conversation, and the request to reason.

    With `late`, the strategy's system prompt comes after the question and not in front of everything, for templates
    that take none, and where the same conversation was read without it.
    """
    early, behind = ("", strategy.system) if late else (strategy.system, "")
    return _asked(_told(messages, early), _joined(behind, strategy.reasoning))


def answer_messages(
    messages: Sequence[Message], strategy: Strategy, reasoning: str, *, late: bool = False
) -> tuple[Message, ...]:
    """The second phase: the first one, what was reasoned, and the request to answer.

    `reasoning` goes in as it was written, spaces included: only then has a prefix cache read it.
    """
    first = reasoning_messages(messages, strategy, late=late)
    return (*first, Message(role="assistant", content=reasoning), Message(role="user", content=strategy.answer))


def only_messages(messages: Sequence[Message], strategy: Strategy, *, late: bool = False) -> tuple[Message, ...]:
    """The one phase of a strategy that does not reason, or for which there is no room."""
    return _asked(messages, strategy.system) if late else _told(messages, strategy.system)


def choosing_messages(messages: Sequence[Message], strategies: Strategies) -> tuple[Message, ...]:
    """What has one of the strategies chosen: the conversation, as it will be read afterwards, and the question."""
    listed = "\n".join(f"- {name}: {strategy.description}" for name, strategy in strategies.named.items())
    return _asked(messages, f"{strategies.auto.question.rstrip()}\n{listed}")


def choosing_pattern(strategies: Strategies) -> str:
    """A regular expression of all that may be chosen."""
    return "|".join(re.escape(name).replace(r"\-", "-") for name in strategies.named)


def reasoning_tokens(strategy: Strategy, tokens: int) -> int:
    """How many of `tokens` the reasoning may use; at least one is left for the answer."""
    return max(0, min(int(tokens * strategy.share), strategy.limit, tokens - 1))


def _told(messages: Sequence[Message], system: str) -> tuple[Message, ...]:
    if not system:
        return tuple(messages)
    if messages and messages[0].role == "system":
        first = msgspec.structs.replace(messages[0], content=_joined(messages[0].content, system))
        return (first, *messages[1:])
    return (Message(role="system", content=system), *messages)


def _asked(messages: Sequence[Message], addition: str) -> tuple[Message, ...]:
    """Behind the user's last words where they come last; some templates refuse two turns of the same role in a row."""
    if not addition:
        return tuple(messages)
    if messages and messages[-1].role == "user":
        last = msgspec.structs.replace(messages[-1], content=_joined(messages[-1].content, addition))
        return (*messages[:-1], last)
    return (*messages, Message(role="user", content=addition))


def _joined(one: str, other: str) -> str:
    return "\n\n".join(text for text in (one, other) if text)


# --- the files ------------------------------------------------------------------------------


@functools.cache
def packaged() -> Strategies:
    """The packaged strategies."""
    raw = (importlib.resources.files(__package__) / FILE_NAME).read_bytes()
    return _read(raw, FILE_NAME, None)


def load(path: Path | None) -> Strategies:
    """The packaged strategies, with those of a user's file in place of the ones of the same name, or beside them.

    Without a file at `path` there are no others. Raises UsageError, which names the table and the key, for a file that
    cannot be read or is not in this form.
    """
    if path is None or not path.is_file():
        return packaged()
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > MAX_FILE_BYTES:
        raise UsageError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes.")
    return _read(raw, str(path), packaged())


def _read(raw: bytes, where: str, base: Strategies | None) -> Strategies:
    try:
        tables = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{where} is not TOML: {error}") from error
    _known(tables, (AUTO, "strategy"), where)
    given = _table(tables.get("strategy", {}), f"{where}: strategy")
    found = {name: _strategy(name, given[name], f"{where}: [strategy.{name[:100]}]") for name in given}
    named = {**(base.named if base else {}), **found}
    if len(named) > MAX_STRATEGIES:
        raise UsageError(f"{where}: there are more than {MAX_STRATEGIES} strategies.")
    auto = base.auto if base and AUTO not in tables else _converted(tables.get(AUTO, {}), Auto, f"{where}: [{AUTO}]")
    return Strategies(MappingProxyType(named), auto)


def _strategy(name: str, table: object, where: str) -> Strategy:
    if name == AUTO or not _NAME.fullmatch(name):
        raise UsageError(f'{where}: a name is of a to z, 0 to 9 and "-", at most 40 of them, and not "{AUTO}".')
    strategy = _converted(table, Strategy, where)
    if bool(strategy.reasoning) != bool(strategy.answer):
        raise UsageError(f"{where}: `reasoning` and `answer` belong together: give both or neither.")
    return strategy


def _converted(table: object, kind: type[_Entry], where: str) -> _Entry:
    _known(_table(table, where), kind.__struct_fields__, where)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}") from error


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a table.")
    return value


def _known(table: Mapping[str, object], keys: Sequence[str], where: str) -> None:
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key[:100], keys, n=1)
            meant = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(keys)}."
            raise UsageError(f"{where} has the unknown key `{key[:100]}`: {meant}")

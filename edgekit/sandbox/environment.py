"""jinja2's immutable sandbox with a budget, and with what chat templates expect to find.

That is what transformers gives them (its documentation of chat templates).
"""

import datetime
import functools
import html
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinMethodType
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.utils import Cycler, Joiner, Namespace

from edgekit.errors import TemplateError
from edgekit.sandbox.budget import ITEM, Budget
from edgekit.sandbox.growth import FILTERS, GLANCES, MAX_WIDTH, METHODS, Bound, braced, combined, formatted
from edgekit.sandbox.metering import CONCAT, SLICED, STEP, WEIGHED, metered

_SCOPES = ("_loop_vars", "_block_vars")
"""Arguments that jinja2 adds to calls, and takes away again."""

_CLASSES = (Cycler, Joiner, Namespace)
_MOST_DATE_CHARS = 200


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what was generated, for training; here it is what it encloses."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements within."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class MeteredEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Compiles templates with counters, and runs each rendering on the budget of its thread."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        # trim_blocks and lstrip_blocks are what template authors test against. Nothing is folded while compiling:
        # there is no budget then.
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=["jinja2.ext.loopcontrols", Generation]
        )
        self._running = threading.local()
        self.globals = {
            "range": self.globals["range"],
            "dict": _dict,
            "cycler": Cycler,
            "joiner": Joiner,
            "namespace": Namespace,
            "raise_exception": _raise,
            "strftime_now": _strftime_now,
        }
        ours: dict[str, Callable[..., Any]] = {"tojson": _tojson, "safe": str, "e": _escape, "escape": _escape}
        found = {**self.filters, **ours}
        self.filters = {name: self._metered(name, found[name], bound) for name, bound in FILTERS.items()}
        self.filters |= {STEP: self._step, WEIGHED: self._weighed, SLICED: self._sliced, CONCAT: self._concat}
        self.finalize = self._finalised

    def compiled(self, source: str) -> jinja2.Template:
        """A template. Raises whatever a program that is none may cause."""
        code = self.compile(metered(self.parse(source), self))
        return jinja2.Template.from_code(self, code, dict(self.globals))

    def start(self) -> None:
        """A rendering begins on this thread, with a budget of its own."""
        self._running.budget = Budget()

    @property
    def budget(self) -> Budget:
        """Of the rendering on this thread."""
        budget: Budget = self._running.budget
        return budget

    # --- what compiled templates call -------------------------------------------------------

    def _step(self, count: int) -> bool:
        self.budget.step(count)
        return True

    def _weighed(self, value: Any) -> Any:
        self.budget.step()
        self.budget.read(self.budget.weigh(value))
        return value

    def _sliced(self, value: Any) -> Any:
        """What is about to be sliced, which makes a copy."""
        self.budget.step()
        if hasattr(value, "__len__"):
            self.budget.make(len(value) if isinstance(value, str) else ITEM * len(value))
        return value

    def _concat(self, parts: list[Any]) -> str:
        self.budget.step()
        self.budget.make(sum(map(self.budget.weigh, parts)))
        return "".join(map(str, parts))

    @jinja2.pass_eval_context  # which also keeps jinja2 from calling it while compiling
    def _finalised(self, _: nodes.EvalContext, value: Any) -> Any:
        """Whatever is printed; in a macro or a block it becomes a text that grows."""
        self.budget.step()
        self.budget.make(self.budget.weigh(value))
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator that may make something larger."""
        self.budget.step()
        self.budget.make(combined(self.budget, operator, left, right))
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, measured."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        form = str(value.__self__)

        def measured(*args: Any, **kwargs: Any) -> str:
            self.budget.make(braced(self.budget, form, (args, kwargs)))
            return wrapped(*args, **kwargs)

        return measured

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Anything that a template calls; of Python's own methods only those in the table."""
        self.budget.step()
        given = {name: value for name, value in kwargs.items() if name not in _SCOPES}
        if isinstance(obj, Macro):
            return super().call(context, obj, *args, **kwargs)
        if isinstance(obj, type) and obj not in _CLASSES:
            raise TemplateError(f"it calls {obj.__name__}")
        if isinstance(obj, BuiltinMethodType):
            self._measure(_method(obj), (obj.__self__, *args), given)
        else:
            self.budget.read(self.budget.weigh((args, given)))
        result = super().call(context, obj, *args, **kwargs)
        return self._made(result) if isinstance(result, list | tuple | dict) else result

    # --- filters ----------------------------------------------------------------------------

    def _measure(self, bound: Bound, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Before a method or a filter is called: `args` begin with what it is called on."""
        for argument in (*args[1:], *kwargs.values()):
            if isinstance(argument, int) and abs(argument) > MAX_WIDTH:
                raise TemplateError(f"it asks for a width of more than {MAX_WIDTH:,}")
        value, *others = args
        weight = self.budget.weigh(value)
        other = self.budget.weigh((others, kwargs))
        if isinstance(value, list | tuple | dict):  # each is looked at together with the arguments
            self.budget.step(len(value) * (1 + other // 1024))
        self.budget.read(weight + other)
        self.budget.make(bound(*args, **kwargs))

    def _metered(self, name: str, function: Callable[..., Any], bound: Bound) -> Callable[..., Any]:
        """A filter that is measured before it is called, and takes and returns lists for iterators."""
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            self.budget.step()
            args = (*args[:skipped], self._listed(args[skipped]), *args[skipped + 1 :])
            if name in GLANCES:
                return function(*args, **kwargs)
            self._measure(bound, args[skipped:], kwargs)
            if name == "format":
                self.budget.make(formatted(self.budget, str(args[skipped]), (args[skipped + 1 :], kwargs)))
            return self._made(self._listed(function(*args, **kwargs)))

        return filtered

    def _made(self, value: Any) -> Any:
        """A result: what a list holds was there before."""
        weight = self.budget.weigh(value)
        self.budget.make(weight if isinstance(value, str) else ITEM * len(value) if hasattr(value, "__len__") else 0)
        return value

    def _listed(self, value: Any) -> Any:
        if not isinstance(value, Iterator):
            return value
        found = []
        for item in value:
            self.budget.step()
            found.append(item)
        return found


def _method(method: BuiltinMethodType) -> Bound:
    owner = type(method.__self__)
    for kind, methods in METHODS.items():
        if issubclass(owner, kind) and method.__name__ in methods:
            return methods[method.__name__]
    raise TemplateError(f"it calls {owner.__name__}.{method.__name__}")


def _raise(message: object) -> NoReturn:
    """What templates call to refuse, for instance two user turns in a row."""
    raise jinja2.TemplateError(str(message))


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """`dict` without the class's methods, which would change values that templates may not change."""
    return dict(*args, **kwargs)


def _escape(value: object) -> str:
    """A text for HTML. jinja2's own gives out a kind of string that escapes whatever it meets."""
    return html.escape(str(value))


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - as transformers has it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - the same
) -> str:
    """JSON as models were trained on it: jinja2's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    """Some templates print today's date."""
    if len(form) > _MOST_DATE_CHARS:
        raise TemplateError("it asks for a date in a form that is too long")
    return datetime.datetime.now().astimezone().strftime(form)  # noqa: TID251 - the template asks, here is no caller

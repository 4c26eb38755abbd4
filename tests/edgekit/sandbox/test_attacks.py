"""A template that would take for ever, or all memory, is stopped by counting: on any machine at the same place."""

import pytest

from edgekit import chat
from edgekit.chat import ChatTemplate, Message
from edgekit.errors import CorruptBundle, TemplateError
from edgekit.sandbox import budget, metering
from tests.families import HERMES

HELLO = [Message(role="user", content="Hello")]


def sixty_times(change: str, start: str = "'a'") -> str:
    """A value in `n.x` that grows at every pass."""
    return f"{{% set n = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set n.x = {change} %}}{{% endfor %}}"


def many(body: str) -> str:
    values = "{% set a = 'a' * 4000000 %}{% set l = range(9999) | list %}"
    return f"{values}{{% for i in range(99999) %}}{body}{{% endfor %}}"


ENDLESS = {
    "loops in loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "loops that find nothing": "{% for a in range(9999) %}{% for b in range(9999) if false %}{% endfor %}{% endfor %}",
    "a loop over what it makes": "{% for a in [1] recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "a long body": "{% for a in range(99999) %}" + "{% set x = a %}" * 999 + "{% endfor %}",
    "much text": "{% set x %}{% for i in range(99999) %}" + "y" * 99999 + "{% endfor %}{% endset %}",
    "a tree of macros": ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"),
    "a long macro": "{% macro f() %}"
    + "{% set x = 1 %}" * 999
    + "{% endmacro %}{% for i in range(99999) %}{{ f() }}{% endfor %}",
    "searches in a text": many("{% if 'ab' in a %}{% endif %}"),
    "searches in a list": many("{% if -1 in l %}{% endif %}"),
    "searches by a test": many("{% if 'ab' is in(a) %}{% endif %}"),
    "searches by a filter": "{{ (['ab'] * 9999) | select('in', 'a' * 4000000) | list }}",
    "sorting": many("{% set b = l | sort %}"),
    "mapping": many("{% set b = range(9999) | map('string') | list %}"),
    "comparing": many("{{ loop.changed(l if i % 2 else l + [1]) }}"),
}

GROWING = {
    "times": "{{ 'a' * 10 ** 9 }}",
    "times from the left": "{{ 10 ** 9 * 'a' }}",
    "times a list": "{{ [0] * 10 ** 9 }}",
    "plus": sixty_times("n.x + n.x"),
    "plus of lists": sixty_times("n.x + n.x", "[1]"),
    "tilde": sixty_times("n.x ~ n.x"),
    "percent": sixty_times("'%s%s' % (n.x, n.x)"),
    "percent by a filter": sixty_times("'%s%s' | format(n.x, n.x)"),
    "braces": sixty_times("'{0}{0}'.format(n.x)"),
    "join": sixty_times("[n.x, n.x] | join"),
    "join by a method": sixty_times("n.x.join(['', '', ''])"),
    "replace": sixty_times("n.x | replace('a', n.x)", "'aa'"),
    "replace by a method": "{{ ('a' * 9999).replace('a', 'b' * 9999) }}",
    "replace of nothing": "{{ ('a' * 9999).replace('', 'b' * 9999) }}",
    "a block": "{% set x %}" + "a" * 99 + "{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "a macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}" + sixty_times("f(n.x)"),
    "a block of a filter": "{% filter replace('a', 'b' * 9999) %}{{ 'a' * 99999 }}{% endfilter %}",
    "lists of lists": sixty_times("[n.x, n.x]", "[]") + "{{ n.x }}",
    "dicts of dicts": sixty_times("dict(a=n.x, b=n.x)") + "{{ n.x | tojson }}",
    "tuples of tuples": sixty_times("(n.x, n.x)") + "{{ {n.x: 1} }}",
    "namespaces of namespaces": sixty_times("namespace(a=n.x, b=n.x)") + "{{ n.x }}",
    "a namespace in itself": "{% set n = namespace() %}{% set n.a = n %}{% set n.b = n %}{{ n }}",
    "pieces": "{{ ('a ' * 4000000).split() }}",
    "characters": "{{ ('a' * 4000000) | list }}",
    "an indented text": "{{ ('a\n' * 9999) | indent('x' * 9999) }}",
    "a separator": "{{ range(9999) | join('x' * 9999) }}",
    "values that are kept": (
        "{% set n = namespace(l=[]) %}{% for i in range(99) %}{% set n.l = n.l + ['a' * 4000000 ~ i] %}{% endfor %}"
    ),
}

WIDTHS = {
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent by a filter": "{{ '%1000000000d' | format(1) }}",
    "percent with a star": "{{ '%*d' % (10 ** 9, 1) }}",
    "percent with digits": "{{ '%.999999999f' % 1 }}",
    "percent with a name": "{{ '%(a(b))999999999d' % {'a(b)': 1} }}",
    "braces": "{{ '{:1000000000}'.format(1) }}",
    "braces in braces": "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "braces from a mapping": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "braces by attribute": "{{ ('{:1000000000}' | attr('format'))(1) }}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "center of constants": "{{ 'a' | center(999999999) }}",
    "ljust": "{{ 'a'.ljust(10 ** 9) }}",
    "zfill": "{{ 'a'.zfill(10 ** 9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10 ** 9) }}",
    "indent": "{{ 'a\nb' | indent(10 ** 9) }}",
    "round": "{{ 1 | round(10 ** 9, 'ceil') }}",
    "batch": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "slice": "{{ [1] | slice(10 ** 9) | list }}",
}

OTHERS = {
    "numbers by power": ("{{ 9 ** 4000 ** 2 }}", "numbers grow"),
    "numbers by squares": (sixty_times("n.x * n.x", "9"), "numbers grow"),
    "numbers from text": ("{{ ('f' * 99999) | int(base=16) }}", "numbers grow"),
    "floats": ("{{ 2.0 ** 99999 }}", "OverflowError"),
    "json": ("{{ [1] | tojson(indent=9999) }}", "indents JSON"),
    "json by text": ("{{ [1] | tojson(indent='x' * 9999) }}", "indents JSON"),
    "json by place": ("{{ [1] | tojson(false, 9999) }}", "indents JSON"),
    "sums of lists": ("{{ ([[1]] * 999) | sum(start=[]) }}", "no numbers"),
    "a macro for ever": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "a block for ever": ("{% block a %}{{ self.a() }}{% endblock %}", "RecursionError"),
    "a deep list": (sixty_times("[n.x]").replace("60", "9999") + "{{ n.x }}", "RecursionError|steps|too large"),
    "bytes": ("{{ (1).to_bytes(10 ** 9, 'big') }}", r"int\.to_bytes"),
    "translate": ("{{ 'a'.translate({97: 'b'}) }}", r"str\.translate"),
    "a class": ("{{ dict.fromkeys('ab') }}", "fromkeys"),
    "change by a class": ("{{ dict.update(messages[0], {'role': 'system'}) }}", "update"),
    "a long date": ("{{ strftime_now('%c' * 999) }}", "too long"),
    "filler": ("{{ lipsum(n=10 ** 9) }}", "lipsum"),
}

DAMAGED = {
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "loops deeper than Python's": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "negations": "{{ " + "not " * 20000 + "1 }}",
    "digits": "{{ " + "9" * 9999 + " }}",
    "escaping": "{% autoescape true %}{{ '&' }}{% endautoescape %}",
    "other files": "{% import 'other' as o %}",
    "a filter that is not there": "{{ 'a' | urlize }}",
}


def refused(source: str) -> str:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(source).render(HELLO)
    return str(caught.value)


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_takes_too_many_steps_is_stopped(source: str) -> None:
    assert "more than 300,000 steps" in refused(source)


@pytest.mark.parametrize("source", GROWING.values(), ids=GROWING.keys())
def test_what_grows_too_large_is_never_made(source: str) -> None:
    assert "grow too large" in refused(source) or "steps" in refused(source)


@pytest.mark.parametrize("source", WIDTHS.values(), ids=WIDTHS.keys())
def test_columns_are_no_wider_than_people_read(source: str) -> None:
    assert "too wide" in refused(source) or "a width of more" in refused(source)


@pytest.mark.parametrize(("source", "problem"), OTHERS.values(), ids=OTHERS.keys())
def test_other_ways_to_waste_a_machine_fail(source: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        ChatTemplate(source).render(HELLO)


@pytest.mark.parametrize("source", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_does_not_compile_is_a_damaged_bundle(source: str) -> None:
    with pytest.raises(CorruptBundle, match=r"chat_template\.jinja"):
        ChatTemplate(source)


def test_a_template_of_too_many_parts_is_not_compiled() -> None:
    source = "{{ a }}" * metering.MAX_NODES
    assert len(source) < chat.MAX_TEMPLATE_CHARS
    with pytest.raises(CorruptBundle, match="parts"):
        ChatTemplate(source)


def test_each_rendering_has_a_budget_of_its_own() -> None:
    half = ChatTemplate("{% for i in range(99999) %}{% endfor %}" * 2)
    for _ in range(3):
        half.render(HELLO)


def test_a_long_conversation_stays_far_below_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [Message(role=role, content="word " * 200) for role in ("user", "assistant")] * 500
    monkeypatch.setattr(budget, "MAX_STEPS", budget.MAX_STEPS // 5)
    assert len(ChatTemplate(HERMES).render(turns)) > 1_000_000

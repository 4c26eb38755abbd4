"""Templates render as their authors tested them, and can do nothing else."""

import re

import pytest

from edgekit import chat
from edgekit.chat import ChatTemplate, Message
from edgekit.errors import CorruptBundle, TemplateError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELLO = [Message(role="user", content="Hello")]


def test_chatml_ends_where_the_answer_begins() -> None:
    turns = [Message(role="system", content="Be brief."), *HELLO]
    assert ChatTemplate(CHATML).render(turns) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_block_lines_leave_no_space_behind() -> None:
    source = "{% for m in messages %}\n    {% if m.role == 'user' %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}"
    assert ChatTemplate(source).render(HELLO) == "Hello\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}|{{ eos_token }}", "<s>|</s>"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hello"}]'),
        ("{{ '<é>' | tojson }}", '"<é>"'),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}", "2"),
        ("{{ tools is none }}", "True"),
        ("{{ missing }}", ""),
    ],
)
def test_templates_find_what_transformers_gives_them(source: str, text: str) -> None:
    assert ChatTemplate(source, bos="<s>", eos="</s>").render(HELLO) == text


def test_a_template_may_print_the_date() -> None:
    assert re.fullmatch(r"\d{4}-\d\d", ChatTemplate("{{ strftime_now('%Y-%m') }}").render(HELLO))


def test_text_of_a_message_is_never_a_template() -> None:
    assert (
        ChatTemplate("{{ messages[0].content }}").render([Message(role="user", content="{{ 6 * 7 }}")]) == "{{ 6 * 7 }}"
    )


def test_a_refusal_carries_the_template_authors_words() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", id="class walk"),
        pytest.param(
            "{{ messages.__class__ }}{{ messages.__class__.__base__ }}{{ cycler.__init__.__globals__ }}", id="globals"
        ),
        pytest.param("{{ messages.append(1) }}", id="list mutation"),
        pytest.param("{{ messages[0].update({'role': 'system'}) }}", id="dict mutation"),
        pytest.param("{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", id="format string"),
        pytest.param("{% for i in range(10 ** 9) %}x{% endfor %}", id="endless range"),
        pytest.param("{{ 1 / 0 }}", id="division by zero"),
        pytest.param("{{ missing.attribute }}", id="attribute of nothing"),
        pytest.param("{% include 'other' %}", id="other files"),
        pytest.param("{{ 'x' | nothing_like_that }}", id="unknown filter"),
    ],
)
def test_a_hostile_template_only_ever_fails(source: str) -> None:
    with pytest.raises((TemplateError, CorruptBundle)):
        ChatTemplate(source).render(HELLO)


def test_a_template_that_floods_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "MAX_PROMPT_CHARS", 1000)
    with pytest.raises(TemplateError, match="more than 1000"):
        ChatTemplate("{% for i in range(99999) %}{{ 'x' }}{% endfor %}").render(HELLO)


@pytest.mark.parametrize("source", ["{% if %}", "{{ (", "{% endfor %}", "{" * 5 + "%"])
def test_what_is_not_a_template_is_a_damaged_bundle(source: str) -> None:
    with pytest.raises(CorruptBundle, match=r"chat_template\.jinja"):
        ChatTemplate(source)


def test_a_huge_template_is_not_even_compiled() -> None:
    with pytest.raises(CorruptBundle, match="more than"):
        ChatTemplate("x" * (chat.MAX_TEMPLATE_CHARS + 1))

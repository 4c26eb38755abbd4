"""Every error is a sentence, an exit code and an HTTP status; the drawn tree is the real one."""

import dataclasses
import re

import pytest

from edgekit import errors
from edgekit.errors import EdgekitError


def tree(root: type[EdgekitError] = EdgekitError) -> list[type[EdgekitError]]:
    """The classes of edgekit.errors: other rooms and tests may add their own."""
    children = [kind for kind in root.__subclasses__() if kind.__module__.startswith(f"{errors.__name__}.")]
    return [root, *(kind for child in children for kind in tree(child))]


def made(kind: type[EdgekitError]) -> EdgekitError:
    """An error with every field without a default filled in."""
    needed = [f for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and not f.kw_only]
    values: list[str | int] = [1234 if field.type is int else f"<{field.name}>" for field in needed]
    return kind(*values)


every_error = pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)


@every_error
def test_the_sentence_is_the_docstring_with_every_blank_filled(kind: type[EdgekitError]) -> None:
    sentence = str(made(kind))
    assert sentence
    assert "{" not in sentence
    assert "\n" not in sentence
    for field in dataclasses.fields(kind):
        if f"{{{field.name}" in (kind.__doc__ or ""):
            assert f"<{field.name}>" in sentence or "1234" in sentence.replace(",", "")


@every_error
def test_the_drawn_tree_shows_the_exit_code(kind: type[EdgekitError]) -> None:
    drawn = re.search(rf"\b{kind.__name__} +exit (\d+)", errors.__doc__ or "")
    assert drawn, f"{kind.__name__} is not in the drawing"
    assert int(drawn[1]) == kind.exit_code


@every_error
def test_the_drawn_tree_shows_the_http_status_where_it_changes(kind: type[EdgekitError]) -> None:
    drawn = re.search(rf"\b{kind.__name__} +exit \d+ +(?:HTTP )?(\d{{3}})", errors.__doc__ or "")
    assert not drawn or int(drawn[1]) == made(kind).http_status


def test_the_drawing_names_no_other_errors() -> None:
    drawn = set(re.findall(r"(\w+) +exit \d+", errors.__doc__ or ""))
    assert drawn == {kind.__name__ for kind in tree()}


def test_no_two_errors_share_an_exit_code() -> None:
    codes = [kind.exit_code for kind in tree()]
    assert len(set(codes)) == len(codes)


def test_no_error_lies_deeper_than_its_room() -> None:
    """A leaf may be a kind of another leaf (NotInRepository is a way of being Unreachable), and no further down."""
    assert max(len(kind.__mro__) - len(EdgekitError.__mro__) for kind in tree()) == 3


def test_a_value_with_braces_stays_as_it_is() -> None:
    assert str(errors.InvalidRequest("{problem} {0}")) == "{problem} {0}"


def test_context_overflow_tells_both_numbers() -> None:
    assert "4096" in str(errors.ContextOverflow(5000, 4096))
    assert "5000" in str(errors.ContextOverflow(5000, 4096))


def test_a_request_error_may_name_the_parameter() -> None:
    assert errors.InvalidRequest("no", param="top_p").param == "top_p"
    assert errors.InvalidRequest("no").param is None

"""What goes to standard error: lines that nobody can forge, or objects that a program can read."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from device_agent import logs


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    token = logs.request_id.set("")
    yield
    logs.request_id.reset(token)
    root.handlers[:] = handlers
    root.setLevel(level)


def written(form: logs.Format, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.set_up(form, level, stream)
    return stream


def test_an_object_a_line_with_what_the_record_has() -> None:
    stream = written("json")
    logs.request_id.set("req_1")
    logging.getLogger("a.b").info("%s and\n%s", "one", "two", extra={"fields": {"ms": 1.5, "model": None}})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {"level": "info", "logger": "a.b", "message": "one and\ntwo", "request_id": "req_1", "ms": 1.5}


def test_a_traceback_is_a_field() -> None:
    stream = written("json")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("a").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["error"].endswith("ValueError: why")


def test_what_somebody_sent_cannot_begin_a_line_of_its_own() -> None:
    stream = written("text")
    logging.getLogger("a").warning("unknown model %s", "x\n2026-01-01 ERROR a: forged\x1b[31m")
    (line,) = stream.getvalue().splitlines()
    assert "x\\x0a2026" in line
    assert "\\x1b[31m" in line


def test_a_line_for_people_has_the_fields_and_the_request() -> None:
    stream = written("text")
    logs.request_id.set("req_1")
    logging.getLogger("a").info("GET / 200", extra={"fields": {"ms": 2, "model": None}})
    assert stream.getvalue().endswith("INFO a: GET / 200 ms=2 [req_1]\n")


def test_the_level_counts() -> None:
    stream = written("text", "warning")
    logging.getLogger("a").info("quiet")
    logging.getLogger("a").warning("loud")
    assert stream.getvalue().splitlines()[0].endswith("loud")

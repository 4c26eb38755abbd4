"""Text of a model to nodes: exactly which, for hostile text too, and the same however the text came in."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.end_to_end.fake_agent import FakeAgent, Serving

pytestmark = pytest.mark.browser

OUTSIDE = 'target="_blank" rel="noopener noreferrer nofollow"'


def code(language: str, text: str) -> str:
    caption = f'<figcaption>{language}<button class="copy" type="button">Copy</button></figcaption>'
    return f'<figure class="code">{caption}<pre tabindex="0"><code>{text}</code></pre></figure>'


MARKDOWN = {
    "paragraphs": ("a\nb\n\nc", "<p>a\nb</p><p>c</p>"),
    "bold and italic": ("**a** *b* __c__ _d_", "<p><strong>a</strong> <em>b</em> <strong>c</strong> <em>d</em></p>"),
    "stars that are no markup": ("2 * 3 * 4, snake_case_name", "<p>2 * 3 * 4, snake_case_name</p>"),
    "inline code": ("use `a **b** <i>`", "<p>use <code>a **b** &lt;i&gt;</code></p>"),
    "headings": ("# A\n### B", "<h3>A</h3><h4>B</h4>"),
    "bullets": ("- a\n- b", "<ul><li>a</li><li>b</li></ul>"),
    "numbers": ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    "nested": ("1. a\n   - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
    "loose list": ("- a\n\n- b\n\nc", "<ul><li>a</li><li>b</li></ul><p>c</p>"),
    "quote": ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
    "rule": ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
    "link": (
        "[a](https://example.org/?q=1&r=2)",
        f'<p><a href="https://example.org/?q=1&amp;r=2" {OUTSIDE}>a</a></p>',
    ),
    "bare link": (
        "see http://example.org/a.",
        f'<p>see <a href="http://example.org/a" {OUTSIDE}>http://example.org/a</a>.</p>',
    ),
    "script link": ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
    "data link": ("[a](data:text/html,x)", "<p>[a](data:text/html,x)</p>"),
    "markup": (
        "<img src=x onerror=alert(1)><script>alert(1)</script>",
        "<p>&lt;img src=x onerror=alert(1)&gt;&lt;script&gt;alert(1)&lt;/script&gt;</p>",
    ),
    "open fence": (
        "```py\nif a < b:\n\n    x",
        code("py", "if a &lt; b:\n\n    x"),
    ),
    "text after a fence": (
        "```\nx\n```\ny",
        code("code", "x") + "<p>y</p>",
    ),
}


TABLE = '<div class="table" tabindex="0"><table><thead>{}</thead><tbody>{}</tbody></table></div>'
MARKDOWN |= {
    "table": (
        "| a | b |\n| --- | --: |\n| **c** | d |\nafter",
        TABLE.format(
            '<tr><th>a</th><th class="end">b</th></tr>',
            '<tr><td><strong>c</strong></td><td class="end">d</td></tr>',
        )
        + "<p>after</p>",
    ),
    "table after text, without outer bars": (
        "x\na | b\n:-: | -\n1 | 2 | 3\n4 \\| 5 |",
        "<p>x</p>"
        + TABLE.format(
            '<tr><th class="middle">a</th><th>b</th></tr>',
            '<tr><td class="middle">1</td><td>2</td></tr><tr><td class="middle">4 | 5</td><td></td></tr>',
        ),
    ),
    "bars that are no table": ("a | b\nc | d", "<p>a | b\nc | d</p>"),
    "a divider of another width": ("a | b\n| - |", "<p>a | b\n| - |</p>"),
    "table of markup": (
        "| <i> |\n| - |\n| <img src=x> |",
        TABLE.format("<tr><th>&lt;i&gt;</th></tr>", "<tr><td>&lt;img src=x&gt;</td></tr>"),
    ),
}


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A page whose modules a test can call."""
    serving = Serving(FakeAgent())
    opened = browser.new_page()
    opened.goto(serving.url)
    yield opened
    opened.context.close()
    serving.close()


@pytest.fixture
def rendered(page: Page) -> Callable[[str], str]:
    """What markdown.js makes of a text, as HTML."""

    def run(text: str) -> str:
        return str(
            page.evaluate(
                "async (text) => { const { render } = await import('/web/markdown.js');"
                "const box = document.createElement('div'); box.append(render(text, () => {}));"
                "return box.innerHTML; }",
                text,
            )
        )

    return run


@pytest.mark.parametrize(("text", "html"), MARKDOWN.values(), ids=MARKDOWN)
def test_markdown_becomes_exactly_these_nodes(rendered: Callable[[str], str], text: str, html: str) -> None:
    assert rendered(text) == html


@pytest.mark.parametrize(
    "text",
    [
        "*" * 20_000,
        "[" * 20_000,
        "`" * 20_001,
        "**a" * 5_000,
        "_a" * 10_000,
        "> " * 5_000,
        "- " * 5_000,
        "`a" * 9_999,
        "|" * 20_000,
        "|a|\n|-|\n" * 3_000,
    ],
    ids=lambda text: text[:3],
)
def test_markdown_of_hostile_text_keeps_every_letter(rendered: Callable[[str], str], text: str) -> None:
    letters = re.sub(r"<[^>]*>", "", rendered(text)).count("a")
    assert letters == text.count("a")


GROWING = """
async ([text, sizes]) => {
  const { Growing, render } = await import("/web/markdown.js");
  const whole = document.createElement("div");
  whole.append(render(text, () => {}));
  const wrong = [];
  for (const size of sizes) {
    const box = document.createElement("div");
    const growing = new Growing(box, () => {});
    for (let end = size; end < text.length + size; end += size) growing.show(text.slice(0, end));
    if (box.innerHTML !== whole.innerHTML) wrong.push([size, box.innerHTML]);
  }
  return wrong;
}
"""


@pytest.mark.parametrize("join", ["\n", "\n\n"], ids=["close", "apart"])
def test_text_that_grows_ends_as_if_it_had_come_at_once(page: Page, join: str) -> None:
    everything = join.join(text for name, (text, _) in MARKDOWN.items() if name != "open fence")
    wrong: Any = page.evaluate(GROWING, [everything, [1, 2, 3, 7, 64]])
    assert wrong == []


def test_text_with_foreign_line_ends_grows_too(page: Page) -> None:
    assert page.evaluate(GROWING, ["a\r\n\r\nb\rc\r\n\r\n- d\r\n- e\r\n\r\nf\r\n\r\ng", [1, 2, 5]]) == []


EVENTS = """
async ([bytes, size]) => {
  const { events } = await import("/web/stream.js");
  const stream = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(new Uint8Array(bytes.slice(at, at + size)));
      controller.close();
    },
  });
  const found = [];
  for await (const data of events(stream)) found.push(data);
  return found;
}
"""


@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("data: a\n\ndata: b\n\n", ["a", "b"]),
        ("data: a\r\n\r\ndata:b\r\rdata: c\n\n", ["a", "b", "c"]),
        (": ping\n\nevent: x\nid: 3\ndata: 1\ndata: 2\n\n", ["1\n2"]),
        ("data: \u2028é🎈\n\ndata: unfinished", ["\u2028é🎈"]),
        ("\n\n\ndata:\n\ndata:  two spaces\n\n", ["", " two spaces"]),
    ],
)
def test_events_are_read_as_the_standard_says(page: Page, raw: str, found: list[str], size: int) -> None:
    assert page.evaluate(EVENTS, [list(raw.encode()), size]) == found

"""The chat page in a real Chromium, over the real server, with a fake model that speaks when told to."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from device_agent.engine.records import Piece
from device_agent.http import HttpSettings, Server, create_app
from edgekit.chat import Message
from edgekit.errors import Overloaded
from tests.fakes import FakeService, manifest, script

pytestmark = pytest.mark.browser
WAIT_S = 20.0
"""Only ever waited for when something is broken."""

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Module scope: Playwright keeps an event loop running, which other modules' tests must not meet.
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def service() -> FakeService:
    return FakeService(manifest=manifest(name="tiny-instruct"))


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    settings = HttpSettings(poll_s=0.02, drain_s=0.5)
    server = Server(create_app(service, settings), host="127.0.0.1", port=0, settings=settings)
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server.url
    server.close()
    thread.join()


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Open]:
    """Opens the page; at the end there must have been no complaint and no request to anywhere else."""
    complaints: list[str] = []
    elsewhere: list[str] = []
    opened: list[BrowserContext] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and "503" not in message.text:  # Chromium reports refused requests
            complaints.append(message.text)

    def watch(request: Request) -> None:
        if not request.url.startswith(url):
            elsewhere.append(request.url)

    def run(*, width: int = 1280, height: int = 800, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        opened.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", watch)
        page.goto(url)
        expect(page.locator("#model")).to_have_text("tiny-instruct")
        return page

    yield run
    for context in opened:
        context.close()
    assert complaints == []
    assert elsewhere == []


def ask(page: Page, text: str) -> None:
    page.locator("#input").fill(text)
    page.keyboard.press("Enter")


def answered(page: Page, service: FakeService, question: str, *texts: str) -> None:
    """A whole exchange."""
    service.replies = script(*texts)
    done = page.locator(".answer.done").count()
    ask(page, question)
    expect(page.locator(".answer.done")).to_have_count(done + 1)
    service.replies = ()


def test_the_header_says_what_runs_here(open_page: Open) -> None:
    expect(open_page().locator("#facts span")).to_have_text(["INT4", "96 MB", "200 context", "v1.0"])


def test_text_appears_while_the_model_still_writes(open_page: Open, service: FakeService) -> None:
    page = open_page()
    ask(page, "What is the capital of France?")
    answer = service.answers.get(timeout=WAIT_S)
    expect(page.locator(".bubble")).to_have_text("What is the capital of France?")
    expect(page.locator("#welcome")).to_be_hidden()
    answer.push(Piece(text="Par", tokens=(1,)))
    expect(page.locator(".answer .prose")).to_have_text("Par")
    expect(page.locator(".answer.done")).to_have_count(0)
    answer.push(Piece(text="is", tokens=(1,)))
    expect(page.locator(".answer .prose")).to_have_text("Paris")
    answer.push(*script("."))
    expect(page.locator(".answer.done .prose")).to_have_text("Paris.")
    expect(page.locator("#status")).to_have_text("Paris.")


def test_an_answer_shows_its_numbers(open_page: Open, service: FakeService) -> None:
    page = open_page()
    answered(page, service, "Hi", "Hello", "!")
    numbers = page.locator(".numbers")
    expect(numbers).to_contain_text("20 tokens/s")  # the device's own measurement
    expect(numbers).to_contain_text(re.compile(r"first token \d+(\.\d+)? m?s"))
    expect(numbers).to_contain_text("3 tokens")
    expect(page.locator("#context")).to_have_text("5 of 200 tokens of context")


@pytest.mark.parametrize("by", ["button", "escape"])
def test_stop_ends_the_generation_and_keeps_the_text(open_page: Open, service: FakeService, by: str) -> None:
    page = open_page()
    ask(page, "Count to a million")
    answer = service.answers.get(timeout=WAIT_S)
    answer.push(Piece(text="One, two", tokens=(1,)))
    expect(page.locator(".answer .prose")).to_have_text("One, two")
    if by == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    assert answer.cancelled.wait(WAIT_S)
    expect(page.locator(".answer.done .note")).to_have_text("Stopped.")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_a_new_chat_stops_the_answer_and_forgets_everything(open_page: Open, service: FakeService) -> None:
    page = open_page()
    ask(page, "Old question")
    answer = service.answers.get(timeout=WAIT_S)
    answer.push(Piece(text="Old answer", tokens=(1,)))
    expect(page.locator(".answer .prose")).to_have_text("Old answer")
    page.locator("#new").click()
    assert answer.cancelled.wait(WAIT_S)
    expect(page.locator("#welcome")).to_be_visible()
    answered(page, service, "New question", "New answer")
    expect(page.locator(".turn")).to_have_count(2)
    assert service.conversations[-1] == (Message(role="user", content="New question"),)


def test_a_conversation_is_sent_whole(open_page: Open, service: FakeService) -> None:
    page = open_page()
    answered(page, service, "One", "1")
    answered(page, service, "Two", "2")
    assert [(turn.role, turn.content) for turn in service.conversations[-1]] == [
        ("user", "One"),
        ("assistant", "1"),
        ("user", "Two"),
    ]


def test_the_last_answer_can_be_tried_again_and_the_last_question_changed(
    open_page: Open, service: FakeService
) -> None:
    page = open_page()
    answered(page, service, "One", "first try")
    service.replies = script("second try")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer.done .prose")).to_have_text("second try")
    assert service.conversations[-1] == (Message(role="user", content="One"),)
    page.get_by_role("button", name="Edit").click()
    expect(page.locator("#input")).to_have_value("One")
    expect(page.locator(".turn")).to_have_count(0)


def test_a_refusal_is_shown_in_the_servers_words_and_can_be_retried(open_page: Open, service: FakeService) -> None:
    page = open_page()
    service.refusal = Overloaded("8 requests are waiting.")
    ask(page, "Hello")
    expect(page.locator("#banner-text")).to_have_text("The agent is busy: 8 requests are waiting.")
    service.refusal, service.replies = None, script("Hi")
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    expect(page.locator(".answer.done .prose")).to_have_text("Hi")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator(".user")).to_have_count(1)


def test_an_answer_that_breaks_off_keeps_its_text_and_says_why(open_page: Open, service: FakeService) -> None:
    page = open_page()
    service.replies = [Piece(text="Half an ans", tokens=(1,)), Overloaded("too hot.")]
    ask(page, "Hello")
    expect(page.locator("#banner-text")).to_contain_text("too hot")
    expect(page.locator(".answer .prose")).to_contain_text("Half an ans")


def test_the_settings_reach_the_model(open_page: Open, service: FakeService) -> None:
    page = open_page()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Top-p").fill("0.5")
    page.get_by_label("Longest answer").fill("9")
    page.get_by_label("Seed").fill("42")
    page.get_by_role("button", name="Done").click()
    page.reload()  # they are kept
    answered(page, service, "Hello", "Hi")
    (generation,) = service.generations
    sampling = generation.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, generation.max_tokens) == (0.0, 0.5, 42, 9)
    assert service.conversations[0][0] == Message(role="system", content="Be brief.")


def test_everything_works_by_keyboard(open_page: Open, service: FakeService) -> None:
    page = open_page()
    service.replies = script("Fine.")
    page.keyboard.type("How")  # the field has the focus from the start
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("are you?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer.done .prose")).to_have_text("Fine.")
    assert service.conversations[0][0].content == "How\nare you?"
    reached = []
    for _ in range(6):
        page.keyboard.press("Shift+Tab")
        reached.append(page.evaluate("document.activeElement.title || document.activeElement.id"))
    assert reached == ["Try again", "Copy", "Edit", "Settings", "Light or dark", "New chat"]
    page.get_by_role("button", name="Settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_an_answer_can_be_copied(open_page: Open, service: FakeService) -> None:
    page = open_page()
    answered(page, service, "Hello", "A **bold** word\n\n```\nx = 1\n```")
    page.locator(".action", has_text="Copy").click()
    expect(page.locator(".action", has_text="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "A **bold** word\n\n```\nx = 1\n```"
    page.locator(".code .copy").click()
    expect(page.locator(".code .copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "x = 1"


# --- text of a model ------------------------------------------------------------------------

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


@pytest.fixture(scope="module")
def rendered(browser: Browser) -> Iterator[Callable[[str], str]]:
    """What markdown.js makes of a text, as HTML."""
    service, settings = FakeService(), HttpSettings(drain_s=0.5)
    server = Server(create_app(service, settings), host="127.0.0.1", port=0, settings=settings)
    thread = threading.Thread(target=server.serve)
    thread.start()
    page = browser.new_page()
    page.goto(server.url)

    def run(text: str) -> str:
        html: Any = page.evaluate(
            "async (text) => { const { render } = await import('/web/markdown.js');"
            "const box = document.createElement('div'); box.append(render(text, () => {})); return box.innerHTML; }",
            text,
        )
        return str(html)

    yield run
    page.context.close()
    server.close()
    thread.join()


@pytest.mark.parametrize(("text", "html"), MARKDOWN.values(), ids=MARKDOWN)
def test_markdown_becomes_exactly_these_nodes(rendered: Callable[[str], str], text: str, html: str) -> None:
    assert rendered(text) == html


@pytest.mark.parametrize(
    "text",
    ["*" * 20_000, "[" * 20_000, "`" * 20_001, "**a" * 5_000, "_a" * 10_000, "> " * 5_000, "- " * 5_000, "`a" * 9_999],
    ids=lambda text: text[:3],
)
def test_markdown_of_hostile_text_keeps_every_letter(rendered: Callable[[str], str], text: str) -> None:
    letters = re.sub(r"<[^>]*>", "", rendered(text)).count("a")
    assert letters == text.count("a")


def test_hostile_text_runs_nothing(open_page: Open, service: FakeService) -> None:
    page = open_page()
    hostile = '<img src=x onerror="window.hit=1"><script>window.hit=1</script> [x](javascript:window.hit=1) '
    answered(page, service, hostile, hostile, "`" + hostile + "`\n\n```html\n" + hostile + "\n```")
    assert page.locator("#log").locator("img, script, iframe, a").count() == 0
    assert page.evaluate("window.hit") is None


# --- looks ----------------------------------------------------------------------------------


def lightness(page: Page) -> int:
    colour = str(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    return sum(int(value) for value in re.findall(r"\d+", colour)[:3]) // 3


def test_it_follows_the_system_and_remembers_another_choice(open_page: Open) -> None:
    assert lightness(open_page(dark=False)) > 200
    page = open_page(dark=True)
    assert lightness(page) < 60
    page.get_by_role("button", name="Switch between light and dark").click()
    assert lightness(page) > 200
    page.reload()
    assert lightness(page) > 200


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_scrolls_sideways_on_a_small_screen(open_page: Open, service: FakeService, width: int) -> None:
    page = open_page(width=width, height=740)
    overflow = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(overflow)
    answered(page, service, "x" * 300, "y" * 300, "\n\n```\n" + "z" * 300 + "\n```\n")
    assert not page.evaluate(overflow)
    assert not page.evaluate("(box => box.scrollWidth > box.clientWidth)(document.getElementById('scroll'))")
    page.get_by_role("button", name="Settings").click()
    assert not page.evaluate("(box => box.scrollWidth > box.clientWidth)(document.getElementById('settings'))")


CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colour) => rgb(colour).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const probe = document.body.appendChild(document.createElement("i"));
  const named = (name) => { probe.style.color = `var(--${name})`; return light(getComputedStyle(probe).color); };
  const pairs = [["ink", "ground"], ["soft", "ground"], ["soft", "sunken"], ["ink", "tint"], ["accent", "ground"],
                 ["on-accent", "accent"], ["danger", "danger-tint"], ["soft", "surface"]];
  return Object.fromEntries(pairs.map(([front, back]) => {
    const [low, high] = [named(front), named(back)].sort((a, b) => a - b);
    return [`${front} on ${back}`, (high + 0.05) / (low + 0.05)];
  }));
}
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_that_wcag_asks_for(open_page: Open, dark: bool) -> None:
    """WCAG 2.2, success criterion 1.4.3: 4.5 to 1."""
    ratios: dict[str, float] = open_page(dark=dark).evaluate(CONTRAST)
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}


def test_every_control_has_a_name(open_page: Open, service: FakeService) -> None:
    page = open_page()
    answered(page, service, "Hello", "```\nx\n```")
    page.get_by_role("button", name="Settings").click()
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, textarea')]"
        ".filter(node => !(node.ariaLabel || node.textContent.trim() || node.labels?.length))"
        ".map(node => node.outerHTML)"
    )
    assert json.dumps(nameless) == "[]"

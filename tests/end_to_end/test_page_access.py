"""Every view, in light and dark, on a desk and on a phone: reachable, named, readable, and no wider than the screen."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.conftest import Open
from tests.end_to_end.fake_agent import FakeAgent, closing, event, model

pytestmark = pytest.mark.browser

LONG = "x" * 120
ANSWER = f"## Title\n\n{LONG}\n\n| {LONG} | b |\n| - | - |\n| c | {LONG} |\n\n```python\n{LONG}{LONG}\n```\n\n- [a](https://example.org)"
VIEWS = {
    "chat": ".answer.done",
    "models": ".card h2",
    "models/tiny-instruct": ".detail",
    "device": ".tile",
    "usage": ".plot",
}
SCREENS = [
    pytest.param(width, dark, id=f"{width}-{'dark' if dark else 'light'}")
    for width in (1280, 360)
    for dark in (False, True)
]


def opened(open_page: Open, agent: FakeAgent, view: str, *, width: int, dark: bool) -> Page:
    """The view with something in it, on that screen."""
    agent.models = [model(), model("a-model-with-" + "quite-a-long-name-" * 5, active=False, loaded=False)]
    names = [one["id"] for one in agent.models]
    counts = {"requests": 3, "input_tokens": 123_456, "cached_tokens": 4, "output_tokens": 56}
    agent.rows = [
        {"day": f"2026-11-{day:02}", "model": name, "cost": 1.0} | counts for day in range(1, 20) for name in names
    ]
    deltas = [{"reasoning_content": "Hm."}, {"content": ANSWER}]
    agent.replies = [*(event({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas), closing(prompt=7_500)]
    page = open_page(f"#/{view}", width=width, dark=dark, touch=width < 500)
    if view == "chat":
        page.locator("#input").fill("Hello " + LONG)
        page.locator("#send").click()
    expect(page.locator(VIEWS[view]).first).to_be_visible()
    return page


AUDIT = """
() => {
  const seen = (node) => node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && node.getClientRects().length > 0;
  const name = (node) => {
    const by = node.getAttribute("aria-labelledby");
    return (node.ariaLabel || (by && document.getElementById(by)?.textContent) || node.textContent.trim() ||
      [...(node.labels ?? [])].map((label) => label.textContent.trim()).join("") || node.title || "").trim();
  };
  const short = (node) => node.outerHTML.slice(0, 90);
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  const levels = all("h1, h2, h3, h4").map((node) => Number(node.tagName[1]));
  const problems = {
    nameless: all("button, input, textarea, select, a, summary, dialog, nav, [role=group], [role=region], figure.plot").filter((node) => !name(node)).map(short),
    placeholderOnly: all("input, textarea, select").filter((node) => !node.labels?.length && !node.ariaLabel).map(short),
    doubleIds: ids.filter((id, index) => ids.indexOf(id) !== index),
    dangling: [...document.querySelectorAll("[aria-labelledby], [aria-describedby], label[for]")].flatMap((node) =>
      ["aria-labelledby", "aria-describedby", "for"].flatMap((key) => (node.getAttribute(key) ?? "").split(" ").filter((id) => id && !document.getElementById(id)))),
    headings: levels.filter((level) => level === 1).length === 1 ? [] : levels,
    landmarks: ["main", "nav"].filter((tag) => !document.querySelector(tag)),
    tables: all("table").filter((table) => !table.querySelector("th")).map(short),
    unsaidPictures: all("svg").filter((node) => node.getAttribute("aria-hidden") !== "true" && !name(node)).map(short),
    scrollersOutOfReach: all("pre, .table, .json").filter((node) => node.scrollWidth > node.clientWidth + 1 && node.tabIndex < 0).map(short),
    language: document.documentElement.lang ? [] : ["none"],
    wide: [document.documentElement, ...all("main > section, #scroll, #conversations, dialog")].filter((node) => node.scrollWidth > node.clientWidth + 1).map(short),
  };
  return Object.fromEntries(Object.entries(problems).filter(([, found]) => found.length));
}
"""


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_a_view_is_named_reachable_and_fits(
    open_page: Open, agent: FakeAgent, view: str, width: int, dark: bool
) -> None:
    page = opened(open_page, agent, view, width=width, dark=dark)
    assert page.evaluate(AUDIT) == {}
    assert page.evaluate(UNREADABLE) == {}
    if width < 500:
        assert page.evaluate(SMALL) == []


@pytest.mark.parametrize("width", [320, 360, 768])
def test_drawers_and_dialogs_fit_too(open_page: Open, agent: FakeAgent, width: int) -> None:
    page = opened(open_page, agent, "chat", width=width, dark=False)
    for opener in ("Settings", "Conversations"):
        page.get_by_role("button", name=opener, exact=True).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.evaluate("document.getElementById('more').open = true")
        assert page.evaluate(AUDIT) == {}
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Actions for this conversation").click()
    page.get_by_role("menuitem", name="Delete").click()
    assert page.evaluate(AUDIT) == {}


SMALL = """
() => [...document.querySelectorAll("button, select, summary, a, input:not([type=range]), textarea")]
  .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.closest(".prose p, .prose li, p, .pairs, h2, h3, .json, label"))
  .map((node) => [node, node.getBoundingClientRect()])
  .filter(([node, { width, height }]) => width > 1 && (height < 43.9 || width < 43.9))
  .map(([node, { width, height }]) => `${node.outerHTML.slice(0, 90)} ${width} ${height}`)
"""
"""Controls smaller than 44 px on a touch screen. Links inside sentences are exempt (WCAG 2.2, 2.5.8)."""

COLOURS = """
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => colour.slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
"""
UNREADABLE = (
    "() => {"
    + COLOURS
    + """
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = {};
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility({ visibilityProperty: true }) || node.closest("option, script, style, :disabled, .hidden, noscript, .skip")) continue;
    const ratio = contrast(rgba(getComputedStyle(node).color), ground(node));
    if (ratio < 4.5) found[`${node.tagName} ${node.className} ${walker.currentNode.data.slice(0, 30)}`] = ratio;
  }
  return found;
}
"""
)
"""Visible texts with less contrast than 4.5 to 1 (WCAG 2.2, 1.4.3)."""

SERIES = (
    "() => {"
    + COLOURS
    + """
  const probe = document.body.appendChild(document.createElement("i"));
  const named = (name) => { probe.style.color = `var(--${name})`; return rgba(getComputedStyle(probe).color); };
  const shapes = ["series-0", "series-1", "series-2", "series-3", "series-4", "series-5", "strong-line", "accent"];
  return Object.fromEntries(shapes.map((name) => [name, contrast(named(name), named("surface"))]));
}
"""
)


@pytest.mark.parametrize("dark", [False, True])
def test_shapes_have_the_contrast_that_wcag_asks_for(open_page: Open, dark: bool) -> None:
    """WCAG 2.2, 1.4.11: 3 to 1."""
    ratios: dict[str, float] = open_page(dark=dark).evaluate(SERIES)
    assert {name: ratio for name, ratio in ratios.items() if ratio < 3} == {}


# --- by keyboard ----------------------------------------------------------------------------

FOCUSED = """
() => {
  const node = document.activeElement;
  const style = getComputedStyle(node);
  const ring = style.outlineStyle !== "none" || node.closest(".composer:focus-within");
  return [node.ariaLabel || node.textContent.trim().slice(0, 40) || node.id, Boolean(ring), node === document.body];
}
"""


def walk(page: Page, steps: int) -> list[str]:
    """Names of what Tab reaches; each must show that it has the focus."""
    names = []
    for _ in range(steps):
        page.keyboard.press("Tab")
        found: Any = page.evaluate(FOCUSED)
        if found[2]:
            break
        assert found[1], f"{found[0]} shows no focus"
        names.append(found[0])
    return names


@pytest.mark.parametrize("view", VIEWS)
def test_tab_reaches_everything(open_page: Open, agent: FakeAgent, view: str) -> None:
    page = opened(open_page, agent, view, width=1280, dark=False)
    page.evaluate("document.activeElement.blur()")
    page.locator("#skip").focus()
    reached = ["Skip to content", *walk(page, 200)]
    expected: Any = page.evaluate(
        """() => [...document.querySelectorAll("a[href], button, select, textarea, summary, input, [tabindex='0']")]
          .filter((node) => !node.disabled && node.checkVisibility({ visibilityProperty: true }))
          .map((node) => node.ariaLabel || node.textContent.trim().slice(0, 40) || node.id)"""
    )
    assert sorted(reached) == sorted(expected)


def test_a_chat_can_be_had_by_keyboard_alone(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    agent.replies = [event({"choices": [{"index": 0, "delta": {"content": "Fine."}}]}), closing()]
    page.keyboard.type("How")  # the field has the focus from the start
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("are you?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer.done > .prose")).to_have_text("Fine.")
    assert agent.chats[0]["messages"][0]["content"] == "How\nare you?"
    page.get_by_role("button", name="Actions for this conversation").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Delete")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Actions for this conversation")).to_be_focused()
    page.get_by_role("button", name="Settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Settings")).to_be_focused()


# --- appearance -----------------------------------------------------------------------------


def lightness(page: Page) -> int:
    colour = str(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    return sum(int(value) for value in colour.removeprefix("rgb(").removesuffix(")").split(",")) // 3


def test_it_follows_the_system_and_remembers_another_choice(open_page: Open) -> None:
    assert lightness(open_page(dark=False)) > 200
    page = open_page(dark=True)
    assert lightness(page) < 60
    page.get_by_role("button", name="Switch between light and dark").click()
    assert lightness(page) > 200
    page.reload()
    assert lightness(page) > 200
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Light")).to_be_checked()
    page.get_by_label("System", exact=True).check(force=True)
    assert lightness(page) < 60


def test_motion_stops_for_who_asked_for_less(open_page: Open, agent: FakeAgent) -> None:
    page = opened(open_page, agent, "models", width=1280, dark=False)
    page.emulate_media(reduced_motion="reduce")
    slow: Any = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((node) =>
          [getComputedStyle(node).animationDuration, getComputedStyle(node).transitionDuration]
            .some((times) => times.split(",").some((time) => parseFloat(time) > 0.01))).length"""
    )
    assert slow == 0


def test_the_list_of_conversations_moves_into_a_drawer(open_page: Open, agent: FakeAgent) -> None:
    page = opened(open_page, agent, "chat", width=360, dark=False)
    expect(page.locator("#conversations a")).to_be_hidden()
    page.get_by_role("button", name="Conversations", exact=True).click()
    expect(page.get_by_label("Search conversations")).to_be_focused()
    page.locator("#conversations a").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.get_by_role("complementary", name="Conversations").locator("a")).to_have_count(1)

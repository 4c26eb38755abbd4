"""Every view, in light and dark, on a desk and on a phone: reachable, named, readable, and no wider than the screen."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.conftest import Open
from tests.end_to_end.fake_agent import FakeAgent, closing, event, model

pytestmark = pytest.mark.browser

LONG = "x" * 120
ANSWER = (
    f"## Title\n\n{LONG}\n\n| {LONG} | b |\n| - | - |\n| c | {LONG} |\n\n"
    f"```python\n{LONG}{LONG}\n```\n\n- [a](https://example.org)"
)
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


AUDITS = Path(__file__).with_name("audits.js").read_text(encoding="utf-8")


def audit(page: Page, name: str) -> Any:
    """What a function of audits.js finds: nothing, if all is well."""
    return page.evaluate(f"{AUDITS}.{name}()")


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


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_a_view_is_named_reachable_and_fits(
    open_page: Open, agent: FakeAgent, view: str, width: int, dark: bool
) -> None:
    page = opened(open_page, agent, view, width=width, dark=dark)
    assert audit(page, "audit") == {}
    assert audit(page, "unreadable") == {}
    if width < 500:
        assert audit(page, "small") == []


@pytest.mark.parametrize("width", [320, 360, 768])
def test_drawers_and_dialogs_fit_too(open_page: Open, agent: FakeAgent, width: int) -> None:
    page = opened(open_page, agent, "chat", width=width, dark=False)
    for opener in ("Settings", "Conversations"):
        page.get_by_role("button", name=opener, exact=True).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.evaluate("document.getElementById('more').open = true")
        assert audit(page, "audit") == {}
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Actions for this conversation").click()
    page.get_by_role("menuitem", name="Delete").click()
    assert audit(page, "audit") == {}


@pytest.mark.parametrize("dark", [False, True])
def test_shapes_have_the_contrast_that_wcag_asks_for(open_page: Open, dark: bool) -> None:
    """WCAG 2.2, 1.4.11: 3 to 1."""
    ratios: dict[str, float] = audit(open_page(dark=dark), "shapes")
    assert {name: ratio for name, ratio in ratios.items() if ratio < 3} == {}


# --- by keyboard ----------------------------------------------------------------------------


def walk(page: Page, steps: int) -> list[str]:
    """Names of what Tab reaches; each must show that it has the focus."""
    names = []
    for _ in range(steps):
        page.keyboard.press("Tab")
        found: Any = audit(page, "focused")
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
    expected: Any = audit(page, "reachable")
    assert sorted(reached) == sorted(expected)


def test_a_chat_can_be_had_by_keyboard_alone(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    agent.replies = [event({"choices": [{"index": 0, "delta": {"content": "Fine."}}]}), closing()]
    expect(page.locator("#input")).to_be_focused()  # from the start
    page.keyboard.type("How")
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
    expect(page.get_by_label("Light", exact=True)).to_be_checked()
    page.get_by_label("System", exact=True).check(force=True)
    assert lightness(page) < 60


def test_motion_stops_for_who_asked_for_less(open_page: Open, agent: FakeAgent) -> None:
    page = opened(open_page, agent, "models", width=1280, dark=False)
    page.emulate_media(reduced_motion="reduce")
    slow: Any = audit(page, "moving")
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

"""The view of updates, against a scripted agent."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.conftest import Open
from tests.end_to_end.fake_agent import FakeAgent
from tests.end_to_end.fake_updates import entry, line, offer, progress, sync

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'


def opened(open_page: Open, **how: Any) -> Page:
    """The view, with the admin token given."""
    page = open_page("#/updates", **how)
    page.get_by_label("Token", exact=True).fill("admin-secret")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#view-updates .tiles, #view-updates .empty, #view-updates .notice").first).to_be_visible()
    return page


def test_it_asks_for_the_admin_token_and_explains_itself_without(open_page: Open, agent: FakeAgent) -> None:
    page = open_page("#/updates")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#view-updates .problem")).to_contain_text("admin token")
    assert "GET /v1/edgekit/sync" not in agent.asked
    page.get_by_role("button", name="Try again").click()
    page.get_by_label("Token", exact=True).fill("wrong")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".reason")).to_contain_text("scope 'admin'")
    page.get_by_label("Token", exact=True).fill("admin-secret")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".line h2")).to_have_text("tiny-instruct-1.2")


def test_what_runs_when_it_was_looked_and_what_is_trusted(open_page: Open) -> None:
    page = opened(open_page)
    assert page.title() == "Updates · edgekit"
    expect(page.locator(".line .badge")).to_have_text(["Serving"])
    expect(page.locator(".line")).to_contain_text("This is the newest that the channel has for this device.")
    expect(page.locator("#view-updates .tile .big")).to_have_text(["5 min ago", "Current", "19.3 GB"])
    expect(page.locator("#view-updates .tile").first).to_contain_text("next look in 5")
    expect(page.locator(".story").first.locator(".badge")).to_have_text(["Up to date", "Installed"])
    expect(page.locator(".story").first).to_contain_text("11 MB downloaded, 95 MB reused, in 42 s")
    expect(page.locator(".stack")).to_contain_text("https://models.example/fleet")
    expect(page.locator(".stack")).to_contain_text("site=lyon")


def test_what_an_offer_costs_and_saves(open_page: Open, agent: FakeAgent) -> None:
    agent.updates = sync(lines=[line(offered=offer())])
    page = opened(open_page)
    box = page.locator(".offer")
    expect(box.locator("h3")).to_have_text("tiny-instruct-1.3 is offered")
    expect(box.locator(".big")).to_have_text("11 MB to download instead of 106 MB")
    expect(box.locator(".legend b")).to_have_text(["10 %", "95 MB", "60 MB"])


def test_why_a_release_was_refused(open_page: Open, agent: FakeAgent) -> None:
    reason = "tiny-instruct-1.3: 3 of 24 golden tokens agree"
    agent.updates = sync(
        lines=[line(offered=offer(cost=None), last=entry("refused", "tiny-instruct-1.3", reason=reason))],
        refusals=[{"release": "tiny-instruct-1.3", "channel": "stable", "reason": reason, "at": 1_795_000_000}],
    )
    page = opened(open_page)
    expect(page.locator(".offer h3")).to_have_text("tiny-instruct-1.3 was refused")
    expect(page.locator(".offer")).to_contain_text("3 of 24 golden tokens agree.")
    expect(page.locator(".line .badge.bad")).to_have_text("Refused")
    expect(page.get_by_role("heading", name="Failed here")).to_be_visible()


FULL = "there is not enough space for it"


@pytest.mark.parametrize(
    ("offered", "last", "title", "words"),
    [
        (offer(cost=None), entry("failed", "tiny-instruct-1.3", reason=FULL), "could not be installed", FULL),
        (offer(), entry("failed", "tiny-instruct-1.3", reason=FULL), "could not be installed", FULL),
        (offer(cost=None, reason="fetched"), entry("held", "tiny-instruct-1.3"), "waits", "fetched"),
        (offer(), entry("refused", "tiny-instruct-1.1", exit_code=0), "is offered", "11 MB to download"),
        (offer(), entry("failed", None, reason="nobody answers"), "is offered", "nobody answers"),
        (offer(cost=None), None, "is offered", "it is on this device already, and only has to be tried"),
    ],
)
def test_what_became_of_the_release_that_is_offered(
    open_page: Open, agent: FakeAgent, offered: Any, last: Any, title: str, words: str
) -> None:
    agent.updates = sync(lines=[line(offered=offered, last=last)])
    box = opened(open_page).locator(".offer")
    expect(box.locator("h3")).to_have_text(f"tiny-instruct-1.3 {title}")
    expect(box).to_contain_text(words, ignore_case=True)


def test_progress_moves_while_somebody_looks(open_page: Open, agent: FakeAgent) -> None:
    under_way = {"channel": "stable", "release": "tiny-instruct-1.3", "total_bytes": 11_000_000}
    agent.updates = sync(
        state=progress("fetching", done_bytes=5_500_000, bytes_per_s=420_000.0, eta_s=75.0, **under_way)
    )
    page = opened(open_page)
    expect(page.locator(".steps [aria-current]")).to_have_text("Fetch")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    expect(page.locator(".under-way .below")).to_contain_text("420 kB/s, 1 min 15 s left")
    expect(page.get_by_role("button", name="Update now")).to_be_disabled()
    agent.updates = sync(state=progress("trial", channel="stable", release="tiny-instruct-1.3"))
    expect(page.locator(".steps [aria-current]")).to_have_text("Try")
    expect(page.locator("#status")).to_contain_text("Trying the new release tiny-instruct-1.3")
    agent.updates = sync(
        state=progress("soaking", channel="stable", release="tiny-instruct-1.3"),
        lines=[line(trial="tiny-instruct-1.3", soaking=True)],
    )
    expect(page.locator(".line h2")).to_have_text("tiny-instruct-1.3")
    expect(page.locator(".line .badge")).to_have_text(["Serving", "Being watched"])
    expect(page.get_by_role("button", name="Go back to tiny-instruct-1.2")).to_be_enabled()
    agent.updates = sync()
    expect(page.locator(".steps")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("The update has ended.")


def test_update_and_check_are_asked_at_once(open_page: Open, agent: FakeAgent) -> None:
    page = opened(open_page)
    with page.expect_response("**/v1/edgekit/sync/check"):
        page.get_by_role("button", name="Check now").click()
    expect(page.get_by_role("button", name="Check now")).to_be_focused()
    with page.expect_response("**/v1/edgekit/sync/update"):
        page.get_by_role("button", name="Update now").click()
    expect(page.get_by_role("button", name="Update now")).to_be_focused()
    assert [verb for verb, _ in agent.wishes] == ["check", "update"]


@pytest.mark.parametrize(
    ("button", "confirm", "asked", "verb"),
    [
        ("Go back to tiny-instruct-1.1", "Go back", "Go back to tiny-instruct-1.1?", "rollback"),
        ("Pin this release", "Pin it", "Stay on tiny-instruct-1.2?", "pin"),
        ("Follow the channel", "Follow it", "Follow stable again?", "unpin"),
    ],
)
def test_changes_are_confirmed_first(
    open_page: Open, agent: FakeAgent, button: str, confirm: str, asked: str, verb: str
) -> None:
    agent.updates = sync(lines=[line(pin="tiny-instruct-1.2" if verb == "unpin" else None)])
    page = opened(open_page)
    page.get_by_role("button", name=button).click()
    expect(page.get_by_role("dialog", name=asked)).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert agent.wishes == []
    page.get_by_role("button", name=button).click()
    with page.expect_response(f"**/v1/edgekit/sync/{verb}"):
        page.get_by_role("button", name=confirm, exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name=button)).to_be_enabled()
    assert agent.wishes == [(verb, {"channel": "stable"})]


def test_a_wish_that_is_refused_is_said_beside_the_button(open_page: Open, agent: FakeAgent) -> None:
    page = opened(open_page)
    said = "Another update is under way: process 7 does `sync`"
    agent.refusals["/v1/edgekit/sync/update"] = (409, {"error": {"message": said}})
    page.get_by_role("button", name="Update now").click()
    expect(page.locator(".page-head .wrong")).to_have_text(said)


def test_a_pinned_line_offers_the_way_back_to_its_channel_alone(open_page: Open, agent: FakeAgent) -> None:
    warnings = ["tiny-instruct-1.2 is pinned, and below the lowest number that its owner still allows"]
    agent.updates = sync(lines=[line(pin="tiny-instruct-1.2", warnings=warnings)])
    page = opened(open_page)
    expect(page.locator(".line button")).to_have_text(["Follow the channel"])
    expect(page.locator(".line .warning")).to_have_text(f"{warnings[0]}.")


@pytest.mark.parametrize(
    ("changed", "title"),
    [
        ({"problem": "both records are damaged"}, "This device cannot tell what it trusted"),
        ({"trust": sync()["trust"] | {"fresh": False}}, "What is known of the repository is out of date"),
        ({"trust": sync()["trust"] | {"clock_reliable": False}}, "This device’s clock is behind"),
        ({"enrolled": False}, "This device follows no repository"),
        ({"enrolled": False, "problem": "device.json is damaged"}, "Updates do not work"),
    ],
)
def test_what_is_wrong_comes_first(open_page: Open, agent: FakeAgent, changed: dict[str, Any], title: str) -> None:
    agent.updates = sync(**changed)
    expect(opened(open_page).locator("#view-updates .content h2").first).to_have_text(title)


def test_another_program_at_work_is_named(open_page: Open, agent: FakeAgent) -> None:
    agent.updates = sync(busy={"pid": 4711, "does": "sync", "since": 1_795_000_000})
    page = opened(open_page)
    expect(page.locator(".under-way")).to_contain_text("edgekit sync, process 4711")
    expect(page.get_by_role("button", name="Pin this release")).to_be_disabled()


def test_hostile_words_stay_text(open_page: Open, agent: FakeAgent) -> None:
    agent.updates = sync(
        lines=[
            line(channel=HOSTILE, active=HOSTILE, warnings=[HOSTILE], last=entry("refused", HOSTILE, reason=HOSTILE))
        ],
        history=[entry("failed", HOSTILE, reason=HOSTILE)],
        repositories=[HOSTILE],
        labels={HOSTILE: HOSTILE},
        device=HOSTILE,
    )
    page = opened(open_page)
    expect(page.locator("#view-updates").get_by_text(HOSTILE).first).to_be_visible()
    assert page.locator("main").locator("img, script, iframe").count() == 0
    assert page.evaluate("window.hit") is None


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_is_wider_than_a_small_screen(open_page: Open, agent: FakeAgent, width: int) -> None:
    agent.updates = sync(
        state=progress("fetching", channel="stable", release="x" * 80, done_bytes=1, total_bytes=2),
        lines=[line(active="x" * 80, previous="y" * 80), line(channel="adapters", active="z" * 80, offered=offer())],
    )
    page = opened(open_page, width=width)
    wider = page.evaluate(
        "[...document.querySelectorAll('#view-updates *')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.className)"
    )
    assert wider == []

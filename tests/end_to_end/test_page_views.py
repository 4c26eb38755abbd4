"""The views of models, device and usage, against a scripted agent."""

import datetime
import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.conftest import Open
from tests.end_to_end.fake_agent import FakeAgent, device, engine, model

pytestmark = pytest.mark.browser
TODAY = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).date()


def row(days_ago: int, name: str, *, requests: int = 2, key: str = "k1", **more: Any) -> dict[str, Any]:
    counts = {"input_tokens": requests * 100, "cached_tokens": requests * 50, "output_tokens": requests * 10}
    day = str(TODAY - datetime.timedelta(days=days_ago))
    return {"day": day, "model": name, "key": key, "key_name": f"name of {key}", "requests": requests} | counts | more


# --- going about ----------------------------------------------------------------------------


def test_every_view_has_an_address_a_title_and_the_focus(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#input")).to_be_focused()
    for name in ("Models", "Device", "Usage"):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", level=1, name=name)).to_be_focused()
        assert page.title() == f"{name} · edgekit"
        assert page.url.endswith(f"#/{name.lower()}")
        expect(page.locator("nav.rail [aria-current]")).to_have_text(name)
    page.go_back()
    expect(page.get_by_role("heading", level=1, name="Device")).to_be_focused()
    page.get_by_role("link", name="Chat").click()
    expect(page.get_by_role("heading", level=1, name="New chat")).to_be_focused()
    assert page.title() == "Chat · edgekit"


@pytest.mark.parametrize("address", ["#/nowhere", "#/chat/unknown", "#/__proto__", "#/chat/%", "#main", "#/valueOf"])
def test_a_wrong_address_leads_to_the_chat(open_page: Open, address: str) -> None:
    expect(open_page(address).locator("#welcome-model")).to_have_text("tiny-instruct")


def test_the_skip_link_leads_into_the_view(open_page: Open) -> None:
    page = open_page("#/usage")
    expect(page.locator(".empty")).to_be_visible()
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Usage")).to_be_focused()
    assert page.url.endswith("#/usage")


# --- models ---------------------------------------------------------------------------------


def test_cards_compare_what_is_in_the_store(open_page: Open, agent: FakeAgent) -> None:
    slow = model("slow", active=False, loaded=False, quality={}, adapters=[])
    slow["measured"] = {"prompt_tokens_per_s": None, "decode_tokens_per_s": 69.3}
    agent.models = [model("fast"), slow]
    page = open_page("#/models")
    expect(page.locator("article.card")).to_have_count(2)
    fast, other = page.locator("article.card").all()
    expect(fast.locator(".badge")).to_have_text(["Active", "In memory", "french"])
    expect(fast.locator("dd")).to_have_text(["135 M", "INT4", "106 MB", "198 MB", "8,192", "apache-2.0"])
    expect(fast.locator(".measured b")).to_have_text(
        ["95.6 %", "0.0037 nats", "21.40 (source 20.90)", "622 tokens/s", "139 tokens/s"]
    )
    expect(other).to_contain_text("Not measured.")
    expect(other.locator(".measured b")).to_have_text(["69 tokens/s"])
    assert other.locator("rect.fill").get_attribute("width") == "50.00"  # of the fastest
    expect(page.locator(".room")).to_have_count(0)


def test_a_single_model_leaves_room_and_no_model_says_so(open_page: Open, agent: FakeAgent) -> None:
    page = open_page("#/models")
    expect(page.locator(".room")).to_contain_text("Room for more")
    agent.models = []
    page.reload()
    expect(page.locator(".empty")).to_contain_text("The store is empty")


def test_a_models_page_shows_card_facts_adapters_and_files(open_page: Open) -> None:
    page = open_page("#/models")
    page.get_by_role("link", name="tiny-instruct", exact=True).click()
    expect(page.get_by_role("heading", level=1, name="tiny-instruct")).to_be_focused()
    expect(page.locator(".prose .table").first).to_contain_text("llama: 30 layers of width 576")
    expect(page.locator(".side")).to_contain_text("9, 3 for keys and values")
    expect(page.locator(".side")).to_contain_text("75 % of 400")
    expect(page.locator(".main .plain-table tbody tr")).to_have_count(2)
    page.get_by_role("link", name="Try tiny-instruct with french").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("tiny-instruct:french")
    page.go_back()
    expect(page.get_by_role("heading", level=1, name="tiny-instruct")).to_be_focused()


def test_an_unknown_model_leads_back(open_page: Open) -> None:
    page = open_page("#/models/other")
    expect(page.locator(".empty")).to_contain_text("There is no such model")
    page.get_by_role("link", name="See those that it has").click()
    expect(page.locator(".card h2").first).to_have_text("tiny-instruct")


def test_activating_asks_for_the_admin_token_once(open_page: Open, agent: FakeAgent) -> None:
    agent.models = [model("first"), model("second", active=False, loaded=False)]
    page = open_page("#/models")
    page.get_by_role("button", name="Activate second").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("admin-token")
    dialog.get_by_role("button", name="Cancel").click()
    assert not any(path.startswith("POST") for path in agent.asked)
    page.get_by_role("button", name="Activate second").click()
    dialog.get_by_label("Token", exact=True).fill("wrong")
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_contain_text("This needs the scope 'admin'.")
    dialog.get_by_label("Token", exact=True).fill(agent.admin)
    dialog.get_by_role("button", name="Continue").click()
    second = page.locator("article.card").nth(1)
    expect(second.locator(".badge").first).to_have_text("Active")
    expect(page.locator("#status")).to_have_text("second is active now.")
    page.get_by_role("button", name="Unload second").click()  # not asked again
    expect(second.locator(".badges")).not_to_contain_text("In memory")
    assert page.evaluate("JSON.stringify(localStorage)").count(agent.admin) == 0


def test_a_refused_change_is_said_beside_the_button(open_page: Open, agent: FakeAgent) -> None:
    page = open_page("#/models")
    agent.refusals["/v1/edgekit/models/tiny-instruct/unload"] = (503, {"error": {"message": "It is in use."}})
    page.get_by_role("button", name="Unload tiny-instruct").click()
    page.get_by_label("Token", exact=True).fill(agent.admin)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".card .wrong")).to_have_text("It is in use.")
    expect(page.get_by_role("button", name="Unload tiny-instruct")).to_be_focused()


def test_an_agent_without_a_catalogue_still_names_its_models(open_page: Open, agent: FakeAgent) -> None:
    agent.missing = {"/v1/edgekit/models"}
    page = open_page("#/models")
    expect(page.locator(".card h2").first).to_have_text("tiny-instruct")
    expect(page.get_by_role("button", name="Unload")).to_have_count(0)


# --- device ---------------------------------------------------------------------------------


def test_the_device_is_watched_while_somebody_looks(open_page: Open, agent: FakeAgent) -> None:
    page = open_page("#/device")
    page.clock.install()
    page.reload()
    expect(page.locator(".big").first).to_have_text("12 tokens/s")
    agent.readings = device(rates={"prompt_tokens_per_s": 0.0, "decode_tokens_per_s": 3.4}, throttled=True)
    page.clock.run_for(2_100)
    expect(page.locator(".big").first).to_have_text("3.4 tokens/s")
    expect(page.locator(".badge.bad")).to_be_visible()
    expect(page.locator(".tile .line").first).to_be_attached()
    page.get_by_role("link", name="Usage").click()
    expect(page.locator(".empty")).to_be_visible()
    agent.asked.clear()
    page.clock.run_for(60_000)
    assert "GET /v1/edgekit/device" not in agent.asked


def test_the_device_tells_all_that_is_known(open_page: Open) -> None:
    page = open_page("#/device")
    view = page.locator("#view-device")
    for text in ("812 MB of 8.2 GB", "764 MB", "48 MB", "61 °C", "Full speed", "19.3 GB free", "78 %", "On battery",
                 "1 running", "2 waiting", "1 d 2 h", "0.4.0", "ARM Cortex-A76, 4 cores, Linux", "1 of 4 at once",
                 "12 in 48 MB", "75 % of 400"):  # fmt: skip
        expect(view).to_contain_text(text)


def test_what_a_device_cannot_tell_is_not_invented(open_page: Open, agent: FakeAgent) -> None:
    agent.readings = device(temperature_c=None, throttled=None, battery=None, models=[])
    page = open_page("#/device")
    expect(page.locator("#view-device")).to_contain_text("No sensor")
    expect(page.locator("#view-device")).to_contain_text("The first question loads one.")
    expect(page.locator("#view-device")).not_to_contain_text("Battery")


def test_a_device_that_comes_back_is_shown_again(open_page: Open, agent: FakeAgent) -> None:
    agent.refusals["/v1/edgekit/device"] = (503, {"error": {"message": "Loading model"}})
    page = open_page("#/device")
    expect(page.locator(".problem")).to_contain_text("Loading model")
    agent.refusals.clear()
    expect(page.locator(".big").first).to_have_text("12 tokens/s")


# --- usage ----------------------------------------------------------------------------------


def test_usage_is_summed_plotted_and_listed(open_page: Open, agent: FakeAgent) -> None:
    agent.rows = [row(0, "a", requests=3), row(0, "b"), row(2, "a", requests=1)]
    page = open_page("#/usage")
    expect(page.locator(".sums .big")).to_have_text(["6", "600", "60"])
    expect(page.locator(".plot .legend li")).to_have_text(["a", "b"])
    expect(page.locator(".column")).to_have_count(30)
    expect(page.locator(".column").last.locator("[class^=series]")).to_have_count(2)
    expect(page.locator(".plain-table tbody tr")).to_have_count(3)
    expect(page.locator(".plain-table tbody tr").first.locator("td")).to_have_text(["a", "3", "300", "150", "30"])
    assert "GET /v1/usage?days=30&group=day,model" in agent.asked
    expect(page.locator("#usage-texts")).to_contain_text("are not kept")


def test_a_day_can_be_read_by_keyboard(open_page: Open, agent: FakeAgent) -> None:
    agent.rows = [row(0, "a", requests=3), row(0, "b"), row(1, "a", requests=1)]
    page = open_page("#/usage")
    page.locator(".axes").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".readout")).to_contain_text("550 tokens: a 330, b 220")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".readout")).to_contain_text("110 tokens, a")
    page.keyboard.press("Home")
    expect(page.locator(".readout")).to_contain_text("0 tokens")


def test_range_and_group_are_links_that_keep_the_focus(open_page: Open, agent: FakeAgent) -> None:
    agent.rows = [row(0, "a"), row(0, "a", key="k2")]
    page = open_page("#/usage")
    page.get_by_role("link", name="7 days").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".column")).to_have_count(7)
    expect(page.get_by_role("link", name="7 days")).to_be_focused()
    page.get_by_role("link", name="By key").click()
    expect(page.locator(".plot .legend li")).to_have_text(["name of k1", "name of k2"])
    assert page.url.endswith("#/usage?days=7&group=key")
    assert agent.asked[-1] == "GET /v1/usage?days=7&group=day,key"
    page.go_back()
    expect(page.get_by_role("link", name="By model")).to_have_attribute("aria-current", "true")


def test_prices_appear_when_there_are_any(open_page: Open, agent: FakeAgent) -> None:
    agent.rows, agent.currency = [row(0, "a", cost=1.5), row(1, "a", cost=None)], "EUR"
    page = open_page("#/usage")
    expect(page.locator(".sums .big").last).to_have_text("1.50 EUR")
    expect(page.locator(".plain-table tbody tr").last.locator("td").last).to_have_text("none")


def test_many_series_share_one_colour(open_page: Open, agent: FakeAgent) -> None:
    agent.rows = [row(0, f"model-{number}", requests=20 - number) for number in range(9)]
    page = open_page("#/usage")
    expect(page.locator(".plot .legend li")).to_have_count(6)
    expect(page.locator(".plot .legend li").last).to_have_text("4 others")
    expect(page.locator(".plain-table tbody tr")).to_have_count(9)


def test_no_usage_yet_is_said(open_page: Open) -> None:
    page = open_page("#/usage")
    expect(page.locator(".empty")).to_contain_text("Nothing was used yet")


def test_usage_can_be_saved(open_page: Open, agent: FakeAgent) -> None:
    page = open_page("#/usage")
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV").click()
    assert started.value.suggested_filename == "usage.csv"
    assert "GET /v1/usage.csv?days=30&group=day,model" in agent.asked


# --- what is missing, and what is hostile ---------------------------------------------------


@pytest.mark.parametrize(
    ("view", "path"), [("device", "/v1/edgekit/device"), ("usage", "/v1/usage"), ("models", "/v1/edgekit/models")]
)
def test_a_view_that_fails_says_so_and_can_be_tried_again(
    open_page: Open, agent: FakeAgent, view: str, path: str
) -> None:
    agent.refusals[path] = (500, {"error": {"message": "The disk is <full>."}})
    page = open_page(f"#/{view}")
    expect(page.locator(".problem")).to_contain_text("The disk is <full>.")
    agent.refusals.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(f"#view-{view} .problem")).to_have_count(0)


@pytest.mark.parametrize("view", ["device", "usage"])
def test_a_route_that_is_not_there_is_explained(open_page: Open, agent: FakeAgent, view: str) -> None:
    agent.missing = {"/v1/edgekit/device", "/v1/usage"}
    expect(open_page(f"#/{view}").locator(".problem")).to_contain_text("This agent does not offer")


HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'


def check_inert(page: Page) -> None:
    expect(page.locator("main > section:visible").get_by_text(HOSTILE).first).to_be_visible()
    assert page.locator("main").locator("img, script, iframe").count() == 0
    assert page.evaluate("window.hit") is None


def test_hostile_names_cards_and_readings_stay_text(open_page: Open, agent: FakeAgent) -> None:
    agent.models = [
        model(HOSTILE, card=f"# {HOSTILE}\n\n[x](javascript:window.hit=1)\n\n| {HOSTILE} | b |\n| - | - |\n| c | d |",
              licence=HOSTILE, version=HOSTILE, adapters=[HOSTILE], files=[{"path": HOSTILE, "size": 1}])
    ]  # fmt: skip
    agent.rows = [row(0, HOSTILE, key_name=HOSTILE)]
    agent.readings = device(machine={"processor": HOSTILE}, models=[{"id": HOSTILE, "engine": engine()}])
    page = open_page("#/models")
    check_inert(page)
    page.locator(".card h2 a").click()
    expect(page.locator(".detail")).to_be_visible()
    check_inert(page)
    assert page.locator(".prose a").count() == 0
    for view in ("device", "usage"):
        page.goto(page.url.split("#")[0] + f"#/{view}")
        check_inert(page)


@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b'{"data": 3}', b'{"data": [{}]}', b"\xff"], ids=repr)
def test_garbled_answers_end_in_a_sentence(open_page: Open, body: bytes) -> None:
    page = open_page()
    page.route("**/v1/edgekit/device", lambda route: route.fulfill(status=200, body=body))
    page.route("**/v1/usage?*", lambda route: route.fulfill(status=200, body=body))
    for view in ("device", "usage"):
        page.goto(page.url.split("#")[0] + f"#/{view}")
        expect(page.locator(f"#view-{view} :is(.problem, .empty, .tiles, .plot)").first).to_be_visible()

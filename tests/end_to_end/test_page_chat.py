"""The chat view: conversations, models, strategies, reasoning, JSON, keys and exports, against a scripted agent."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.conftest import Open
from tests.end_to_end.fake_agent import FakeAgent, closing, event, model, refusal, says

pytestmark = pytest.mark.browser
WAIT_S = 20.0


def ask(page: Page, text: str) -> None:
    page.locator("#input").fill(text)
    page.keyboard.press("Enter")


def answered(page: Page, agent: FakeAgent, question: str, *texts: str) -> None:
    """A whole exchange."""
    agent.replies = says(*texts)
    done = page.locator(".answer.done").count()
    ask(page, question)
    expect(page.locator(".answer.done")).to_have_count(done + 1)
    agent.replies = []


def turns(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in body["messages"]]


def in_menu(page: Page, entry: str) -> None:
    page.get_by_role("button", name="Actions for this conversation").click()
    page.get_by_role("menuitem", name=entry).click()


def until(page: Page, condition: str) -> None:
    """Playwright's own waiting evaluates text inside the page, which the page's policy refuses."""
    for _ in range(500):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    pytest.fail(condition)


GAP = "(box => box.scrollHeight - box.scrollTop - box.clientHeight)(document.getElementById('scroll'))"
"""How far the end of the conversation is below what is seen, in pixels."""


LEAVE_WHEN_ANSWERED = """new MutationObserver(() => {
    if (!document.querySelector('.answer.done')) return;
    location.reload();
    for (const until = performance.now() + 500; performance.now() < until; );  // nothing more is heard of the database
}).observe(document.body, {subtree: true, attributeFilter: ['class']})"""


# --- asking and answering -------------------------------------------------------------------


def test_a_conversation_is_sent_whole(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    answered(page, agent, "One", "1")
    answered(page, agent, "Two", "2")
    assert turns(agent.chats[-1]) == [("user", "One"), ("assistant", "1"), ("user", "Two")]
    assert "edgekit" not in agent.chats[-1]
    assert "response_format" not in agent.chats[-1]


def test_the_last_answer_can_be_tried_again_and_the_last_question_changed(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    answered(page, agent, "One", "first try")
    agent.replies = says("second try")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer.done .prose").last).to_have_text("second try")
    assert turns(agent.chats[-1]) == [("user", "One")]
    page.get_by_role("button", name="Edit").click()
    expect(page.locator("#input")).to_have_value("One")
    expect(page.locator(".turn")).to_have_count(0)


def test_an_answer_shows_its_numbers(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    answered(page, agent, "Hi", "Hello", "!")
    for part in ("20 tokens/s", "first token ", "3 tokens", "8 of 20 prompt tokens cached"):
        expect(page.locator(".numbers")).to_contain_text(part)
    expect(page.locator("#context")).to_have_text("23 of 8,192 tokens of context")
    expect(page.locator("#full")).to_be_hidden()


def test_a_context_that_is_nearly_full_is_said(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    agent.replies = [event({"choices": [{"index": 0, "delta": {"content": "Hi"}}]}), closing(prompt=7_000)]
    ask(page, "Hello")
    expect(page.locator("#full-text")).to_contain_text("85 % full")
    page.locator("#full-new").click()
    expect(page.locator("#full")).to_be_hidden()
    expect(page.locator("#welcome")).to_be_visible()


def test_a_stream_survives_any_cut(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    text = "Grüße, 世界 🎈!"
    raw = b": ping\r\n\r\n" + b"".join(says(*text)).replace(b"\n\n", b"\r\n\r\n", 3)
    ask(page, "Hello")
    stream = agent.streams.get(timeout=WAIT_S)
    for byte in raw:
        stream.raw(bytes([byte]))
    stream.cut()
    expect(page.locator(".answer.done .prose").last).to_have_text(text)
    expect(page.locator("#banner")).to_be_hidden()


def test_an_answer_without_an_end_is_called_broken(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    ask(page, "Hello")
    stream = agent.streams.get(timeout=WAIT_S)
    stream.delta(content="Half")
    stream.cut()
    expect(page.locator("#banner-text")).to_have_text("The connection ended before the answer did.")
    expect(page.locator(".answer .note")).to_have_text("The answer broke off here.")


def test_reasoning_is_folded_away_from_the_answer(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    ask(page, "Hello")
    stream = agent.streams.get(timeout=WAIT_S)
    stream.delta(reasoning_content="They greet. <b>")
    expect(page.locator(".reasoning .state")).to_have_text("in progress")
    stream.delta(content="Hi!")
    stream.end()
    expect(page.locator(".answer.done > .prose")).to_have_text("Hi!")
    expect(page.locator(".reasoning .prose")).to_be_hidden()
    page.locator(".reasoning summary").click()
    expect(page.locator(".reasoning .prose")).to_have_text("They greet. <b>")
    answered(page, agent, "Again", "Yes")
    assert turns(agent.chats[-1])[1] == ("assistant", "Hi!")  # reasoning is not sent back


def test_tool_calls_are_shown(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    ask(page, "Weather?")
    stream = agent.streams.get(timeout=WAIT_S)
    stream.delta(
        tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}]
    )
    for part in ('{"city": "<i>B', 'ern"}'):
        stream.delta(tool_calls=[{"index": 0, "function": {"arguments": part}}])
    stream.end("tool_calls")
    expect(page.locator(".call figcaption")).to_have_text("Calls weather")
    expect(page.locator(".call pre")).to_have_text('{\n  "city": "<i>Bern"\n}')


def test_model_and_strategy_are_chosen(open_page: Open, agent: FakeAgent) -> None:
    encoder = model("encoder", kind="embed", active=False, adapters=[])
    agent.models = [model("first"), model("second", active=False, adapters=["law"]), encoder]
    page = open_page()
    expect(page.locator("#model option")).to_have_text(
        ["first", "\u00a0\u00a0french (adapter)", "second", "\u00a0\u00a0law (adapter)"]
    )
    page.get_by_label("Model", exact=True).select_option("second:law")
    page.get_by_label("Way of reasoning").select_option("Step by step")
    answered(page, agent, "Hello", "Hi")
    assert (agent.chats[-1]["model"], agent.chats[-1]["edgekit"]) == ("second:law", {"strategy": "step-by-step"})


def test_a_schema_is_checked_sent_and_its_answer_folds(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("JSON schema").fill('{"type": "object"')
    expect(page.locator("#schema-problem")).to_have_text("This is not valid JSON.")
    page.get_by_role("button", name="Done").click()
    ask(page, "Hello")
    expect(page.locator("#banner-text")).to_contain_text("This is not valid JSON.")
    expect(page.locator("#input")).to_have_value("Hello")
    assert agent.chats == []
    page.get_by_role("alert").get_by_role("button", name="Try again").click()  # leads to where it can be mended
    expect(page.get_by_label("JSON schema")).to_be_focused()
    page.get_by_label("JSON schema").fill('{"type": "object"}')
    page.get_by_role("button", name="Done").click()
    answered(page, agent, "Hello", '{"a": [1, "<i>"],', ' "b": null}')
    sent = agent.chats[-1]["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["schema"] == {"type": "object"}
    tree = page.locator(".answer .json")
    expect(tree.locator(".string")).to_have_text('"<i>"')
    tree.locator("summary").nth(1).click()
    expect(tree.locator(".string")).to_be_hidden()


def test_a_full_context_offers_a_new_chat(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    sentence = "This model's maximum context length is 200 tokens."
    agent.refusals["/v1/chat/completions"] = (400, refusal(sentence, "context_length_exceeded"))
    ask(page, "Hello")
    expect(page.locator("#banner-text")).to_have_text(sentence)
    page.get_by_role("alert").get_by_role("button", name="New chat").click()
    expect(page.locator("#welcome")).to_be_visible()


def test_who_scrolls_up_is_left_there_and_who_returns_is_followed(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    ask(page, "Count")
    stream = agent.streams.get(timeout=WAIT_S)
    stream.delta(content="".join(f"{number}\n\n" for number in range(100)))
    until(page, f"{GAP} < 3")
    page.locator("#scroll").hover()
    page.mouse.wheel(0, -600)
    until(page, f"{GAP} > 300")
    stream.delta(content="more\n\n" * 20)
    expect(page.locator(".answer .prose").last).to_contain_text("more")
    assert page.evaluate(GAP) > 300
    page.mouse.wheel(0, 9_000)
    until(page, f"{GAP} < 3")
    stream.delta(content="last\n\n" * 20)
    stream.end()
    expect(page.locator(".answer.done")).to_have_count(1)
    until(page, f"{GAP} < 3")


def test_settled_text_is_not_drawn_again(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    ask(page, "Write")
    stream = agent.streams.get(timeout=WAIT_S)
    stream.delta(content="First.\n\nSecond.\n\nThird.\n\nFourth")
    expect(page.locator(".answer > .prose > p")).to_have_count(4)
    page.evaluate("document.querySelector('.answer > .prose > p').dataset.seen = 'yes'")
    stream.delta(content=" goes on.\n\nFifth.")
    stream.end()
    expect(page.locator(".answer.done > .prose > p")).to_have_text(
        ["First.", "Second.", "Third.", "Fourth goes on.", "Fifth."]
    )
    expect(page.locator(".answer > .prose > p[data-seen]")).to_have_text("First.")


def test_an_answer_can_be_copied(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    answered(page, agent, "Hello", "A **bold** word\n\n```\nx = 1\n```")
    page.locator(".action", has_text="Copy").click()
    expect(page.locator(".action", has_text="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "A **bold** word\n\n```\nx = 1\n```"
    page.locator(".code .copy").click()
    expect(page.locator(".code .copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "x = 1"


# --- conversations --------------------------------------------------------------------------


def test_conversations_outlast_the_page_and_can_be_gone_back_to(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    answered(page, agent, "About pumps", "A **pump** moves water.")
    page.locator("#new").click()
    answered(page, agent, "About fans", "A fan moves air.")
    page.reload()
    expect(page.locator("#chat-title")).to_have_text("About fans")
    expect(page.locator(".answer .prose").last).to_have_text("A fan moves air.")
    page.get_by_role("link", name="About pumps").click()
    expect(page.locator(".answer strong")).to_have_text("pump")
    expect(page.locator(".numbers")).to_contain_text("20 tokens/s")
    assert page.title() == "About pumps · edgekit"
    answered(page, agent, "And now?", "On.")
    assert len(agent.chats[-1]["messages"]) == 3
    page.go_back()
    expect(page.locator("#chat-title")).to_have_text("About fans")


def test_an_answer_is_kept_even_if_the_page_is_left_at_once(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    page.evaluate(LEAVE_WHEN_ANSWERED)
    agent.replies = says("Kept.")
    with page.expect_navigation():
        ask(page, "Quick")
    expect(page.locator("#chat-title")).to_have_text("Quick")
    expect(page.locator(".answer .prose").last).to_have_text("Kept.")


def test_conversations_are_found_renamed_and_deleted(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    answered(page, agent, "About pumps", "Water.")
    page.locator("#new").click()
    answered(page, agent, "About fans", "Air.")
    entries = page.locator("#conversations a")
    page.get_by_label("Search conversations").fill("WATER")
    expect(entries).to_have_text(["About pumps"])
    page.get_by_label("Search conversations").fill("sand")
    expect(page.locator("#conversations")).to_have_text("Nothing found.")
    page.get_by_label("Search conversations").fill("")
    in_menu(page, "Rename")
    page.get_by_label("Name", exact=True).fill("Ventilation <b>")
    page.get_by_role("button", name="Rename").click()
    expect(entries).to_have_text(["Ventilation <b>", "About pumps"])
    answered(page, agent, "More", "More air.")
    expect(page.locator("#chat-title")).to_have_text("Ventilation <b>")  # a name given stays
    in_menu(page, "Delete")
    page.get_by_role("button", name="Delete").click()
    expect(entries).to_have_text(["About pumps"])
    expect(page.locator("#welcome")).to_be_visible()
    page.reload()
    expect(entries).to_have_text(["About pumps"])


def test_nothing_is_kept_once_that_is_wished(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    answered(page, agent, "Secret", "Hush.")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Keep conversations in this browser").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Keep conversations in this browser")).to_be_checked()
    page.get_by_label("Keep conversations in this browser").click()
    page.get_by_role("button", name="Keep nothing").click()
    expect(page.locator("#conversations a")).to_have_count(0)
    page.get_by_role("button", name="Done").click()
    answered(page, agent, "Another secret", "Hush.")
    expect(page.locator("#keeping-off")).to_be_visible()
    page.reload()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#conversations a")).to_have_count(0)


def test_a_second_tab_sees_the_same_list(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#welcome-model")).to_have_text("tiny-instruct")
    answered(page, agent, "About pumps", "Water.")
    expect(other.locator("#conversations a")).to_have_text(["About pumps"])


def test_only_so_many_conversations_are_kept(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#welcome-model")).to_have_text("tiny-instruct")
    kept: Any = page.evaluate(
        """async () => {
          const { keep, list, blank, LIMITS } = await import("/web/conversations.js");
          LIMITS.conversations = 5;
          for (let index = 0; index < 8; index++) {
            await keep({ ...blank(), messages: [{ role: "user", content: `number ${index}` }] });
            await new Promise((resolve) => setTimeout(resolve, 2));
          }
          LIMITS.characters = 20;
          await keep({ ...blank(), messages: [{ role: "user", content: "x".repeat(15) }] });
          return list().map(({ title }) => title);
        }"""
    )
    assert kept == ["x" * 15]
    page.reload()
    expect(page.locator("#conversations a")).to_have_text(["x" * 15])


@pytest.mark.parametrize("kind", ["Markdown", "JSON"])
def test_a_conversation_can_be_saved(open_page: Open, agent: FakeAgent, tmp_path: Path, kind: str) -> None:
    page = open_page()
    answered(page, agent, "About pumps?", "A **pump** moves water.")
    with page.expect_download() as started:
        in_menu(page, f"Save as {kind}")
    assert started.value.suggested_filename == ("about-pumps.md" if kind == "Markdown" else "about-pumps.json")
    started.value.save_as(tmp_path / "saved")
    text = (tmp_path / "saved").read_text()
    if kind == "Markdown":
        assert text.startswith("# About pumps?\n")
        assert "## You\n\nAbout pumps?\n\n## tiny-instruct\n\nA **pump** moves water.\n" in text
    else:
        saved = json.loads(text)
        assert saved["format"] == "edgekit.conversation/1"
        assert turns(saved) == [("user", "About pumps?"), ("assistant", "A **pump** moves water.")]


def test_without_storage_the_page_still_works(open_page: Open, agent: FakeAgent) -> None:
    page = open_page()
    page.add_init_script(
        "for (const name of ['indexedDB', 'localStorage', 'sessionStorage'])"
        "Object.defineProperty(window, name, { get() { throw new Error('off'); } });"
    )
    page.reload()
    answered(page, agent, "Hello", "Hi")
    expect(page.locator("#conversations a")).to_have_text(["Hello"])


# --- keys -----------------------------------------------------------------------------------


def test_a_key_is_asked_for_once_and_never_shown_in_the_address(open_page: Open, agent: FakeAgent) -> None:
    agent.key = "ek-right"
    page = open_page("#/models")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_have_count(1)
    expect(dialog).to_contain_text("This agent needs a key.")
    dialog.get_by_label("Key", exact=True).fill("ek-wrong")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_contain_text("This key is not known.")
    dialog.get_by_label("Key", exact=True).fill("ek-right")
    dialog.get_by_role("button", name="Use this key").click()
    expect(page.locator(".card h2").first).to_have_text("tiny-instruct")
    expect(dialog).to_have_count(0)
    page.reload()  # kept as long as the tab
    expect(page.locator(".card h2").first).to_have_text("tiny-instruct")
    page.get_by_role("link", name="Usage").click()
    with page.expect_download() as started:  # a link could not send the key
        page.get_by_role("link", name="CSV").click()
    assert started.value.suggested_filename == "usage.csv"
    assert "ek-" not in page.url
    assert not any("ek-" in path for path in agent.asked)
    assert page.evaluate("JSON.stringify(localStorage)").count("ek-") == 0


def test_a_key_can_be_remembered_and_forgotten(open_page: Open, agent: FakeAgent) -> None:
    agent.key = "ek-right"
    page = open_page()
    page.get_by_label("Key", exact=True).fill("ek-right")
    page.get_by_label("Remember it in this browser").check()
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#welcome-model")).to_have_text("tiny-instruct")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#welcome-model")).to_have_text("tiny-instruct")
    other.get_by_role("button", name="Settings").click()
    other.get_by_role("button", name="Forget the key").click()
    assert other.evaluate("localStorage.getItem('edgekit.key')") is None


def test_who_has_no_key_reads_why_nothing_comes(open_page: Open, agent: FakeAgent) -> None:
    agent.key = "ek-right"
    page = open_page()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#banner-text")).to_have_text("This agent needs a key.")

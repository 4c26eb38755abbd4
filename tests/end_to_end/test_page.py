"""The chat page in a real Chromium, over the real server, with a fake model that speaks when told to."""

import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from device_agent.engine.records import Piece
from device_agent.http import HttpSettings, Server, create_app
from edgekit.chat import Message
from edgekit.errors import Overloaded
from tests.end_to_end.conftest import Open
from tests.fakes import FakeService, manifest, script

pytestmark = pytest.mark.browser
WAIT_S = 20.0
"""Only ever waited for when something is broken."""


@pytest.fixture
def service() -> FakeService:
    return FakeService(manifest=manifest(name="tiny-instruct"))


@pytest.fixture
def open_real(service: FakeService, open_url: Callable[[str], Open]) -> Iterator[Open]:
    """The page of the real server."""
    settings = HttpSettings(poll_s=0.02, drain_s=0.5)
    server = Server(create_app(service, settings), host="127.0.0.1", port=0, settings=settings)
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield open_url(server.url)
    server.close()
    thread.join()


def ask(page: Page, text: str) -> None:
    page.locator("#input").fill(text)
    page.keyboard.press("Enter")


def test_the_welcome_says_what_runs_here(open_real: Open) -> None:
    page = open_real()
    expect(page.locator("#welcome-model")).to_have_text("tiny-instruct")
    expect(page.locator("#facts li")).to_have_text(["INT4", "96 MB", "200 context", "v1.0"])


def test_text_appears_while_the_model_still_writes(open_real: Open, service: FakeService) -> None:
    page = open_real()
    ask(page, "What is the capital of France?")
    answer = service.answers.get(timeout=WAIT_S)
    expect(page.locator(".bubble")).to_have_text("What is the capital of France?")
    expect(page.locator("#welcome")).to_be_hidden()
    answer.push(Piece(text="Par", tokens=(1,)))
    expect(page.locator(".answer .prose").last).to_have_text("Par")
    expect(page.locator(".answer.done")).to_have_count(0)
    answer.push(Piece(text="is", tokens=(1,)))
    expect(page.locator(".answer .prose").last).to_have_text("Paris")
    answer.push(*script("."))
    expect(page.locator(".answer.done .prose").last).to_have_text("Paris.")
    expect(page.locator("#status")).to_have_text("Paris.")
    expect(page.locator(".numbers")).to_contain_text("20 tokens/s")  # the device's own measurement


@pytest.mark.parametrize("by", ["button", "escape", "another conversation"])
def test_stop_ends_the_generation_and_keeps_the_text(open_real: Open, service: FakeService, by: str) -> None:
    page = open_real()
    ask(page, "Count to a million")
    answer = service.answers.get(timeout=WAIT_S)
    answer.push(Piece(text="One, two", tokens=(1,)))
    expect(page.locator(".answer .prose").last).to_have_text("One, two")
    if by == "button":
        page.get_by_role("button", name="Stop").click()
    elif by == "escape":
        page.keyboard.press("Escape")
    else:
        page.locator("#new").click()
    assert answer.cancelled.wait(WAIT_S)
    if by == "another conversation":
        expect(page.locator("#welcome")).to_be_visible()
        page.get_by_role("link", name="Count to a million").click()
    expect(page.locator(".answer.done .prose").last).to_contain_text("One, two")
    expect(page.locator(".answer.done .note")).to_have_text("Stopped.")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_the_settings_reach_the_model(open_real: Open, service: FakeService) -> None:
    page = open_real()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Top-p").fill("0.5")
    page.get_by_label("Longest answer").fill("9")
    page.locator("#more summary").click()
    page.get_by_label("Seed").fill("42")
    page.get_by_label("Top-k").fill("7")
    page.get_by_label("Presence penalty").fill("0.5")
    page.get_by_label("Stop texts").fill("END\nSTOP")
    page.get_by_role("button", name="Done").click()
    page.reload()  # they are kept
    expect(page.locator("#facts li")).to_have_count(4)
    service.replies = script("Hi")
    ask(page, "Hello")
    expect(page.locator(".answer.done")).to_have_count(1)
    (generation,) = service.generations
    sampling = generation.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, generation.max_tokens) == (0.0, 0.5, 42, 9)
    assert (sampling.top_k, sampling.presence_penalty, generation.stop) == (7, 0.5, ("END", "STOP"))
    assert service.conversations[0][0] == Message(role="system", content="Be brief.")


def test_a_refusal_is_shown_in_the_servers_words_and_can_be_retried(open_real: Open, service: FakeService) -> None:
    page = open_real()
    service.refusal = Overloaded("8 requests are waiting.")
    ask(page, "Hello")
    expect(page.locator("#banner-text")).to_have_text("The agent is busy: 8 requests are waiting.")
    service.refusal, service.replies = None, script("Hi")
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    expect(page.locator(".answer.done .prose").last).to_have_text("Hi")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator(".user")).to_have_count(1)


def test_an_answer_that_breaks_off_keeps_its_text_and_says_why(open_real: Open, service: FakeService) -> None:
    page = open_real()
    service.replies = [Piece(text="Half an ans", tokens=(1,)), Overloaded("too hot.")]
    ask(page, "Hello")
    expect(page.locator("#banner-text")).to_contain_text("too hot")
    expect(page.locator(".answer .prose").last).to_contain_text("Half an ans")

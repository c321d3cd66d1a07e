"""A real browser drives `dagster dev`: what is clicked there happens, and the worker's words are found in the run."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.end_to_end.browser import open_browser
from tests.end_to_end.conftest import Installation

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(900)]
PATIENCE_MS = 90_000


class Ui:
    """A running `lorascope ui` and a page in it."""

    def __init__(self, port: int, page: Page) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.page = page

    def open(self, path: str) -> None:
        self.page.goto(self.root + path)

    def ask(self, query: str) -> Any:
        """GraphQL."""
        return ask(self.root, query)

    def wait(self, condition: Callable[[], object], seconds: float = 180) -> Any:
        """The condition's value once it is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(1)
        raise AssertionError(f"nothing after {seconds} s")


def ask(root: str, query: str) -> Any:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{root}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["data"]


@pytest.fixture(scope="module")
def ui(tiny: Installation) -> Iterator[Ui]:
    for name, rollouts in (("ui-a", 5), ("ui-b", 6), ("ui-c", 7)):
        (tiny.experiments / f"{name}.yaml").write_text(f"extends: tiny\ndataset:\n  max_rollouts: {rollouts}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("lorascope")), "ui", "--port", str(port)]
    with (tiny.home.parent / "ui.log").open("w") as log:
        # Dagster copies the disposition of SIGINT to SIGTERM; a test runner in the background may ignore SIGINT.
        process = subprocess.Popen(
            command,
            env=tiny.environment,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            with open_browser() as browser:
                page = browser.new_page(viewport={"width": 1400, "height": 1000})
                page.set_default_timeout(PATIENCE_MS)
                running = Ui(port, page)
                running.wait(lambda: partitions_of(running.root) >= {"ui-a", "ui-b", "ui-c"})
                yield running
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def partitions_of(root: str) -> set[str]:
    """Registered experiments; empty until the server answers."""
    query = '{ assetNodeOrError(assetKey: {path: ["s1k_dataset"]}) { ... on AssetNode { partitionKeys } } }'
    try:
        return set(ask(root, query)["assetNodeOrError"].get("partitionKeys", []))
    except OSError:
        return set()


def materialized(ui: Ui, asset: str) -> set[str]:
    """Partitions of the asset that have been materialised."""
    query = (
        f'{{ assetNodeOrError(assetKey: {{path: ["{asset}"]}}) {{ ... on AssetNode {{ '
        "assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions } } } } }"
    )
    return set(ui.ask(query)["assetNodeOrError"]["assetPartitionStatuses"]["materializedPartitions"])


def test_one_asset_materialised_by_clicks_shows_the_workers_words_in_its_run(ui: Ui) -> None:
    ui.open("/assets/s1k_dataset?view=partitions")
    ui.page.click("button:has-text('Materialize')")
    ui.page.click("text=Select a partition or create one")
    ui.page.click("[class*=Menu] >> text=ui-a")
    ui.page.keyboard.press("Escape")
    ui.page.click("button:has-text('Launch 1 run')")
    ui.wait(lambda: "ui-a" in materialized(ui, "s1k_dataset"))
    run = ui.ask("{ runsOrError(limit: 1) { ... on Runs { results { runId status } } } }")["runsOrError"]["results"][0]
    ui.open(f"/runs/{run['runId']}")
    ui.page.wait_for_selector("text=tokenise 5/5")
    assert ui.wait(lambda: status_of(ui, run["runId"]) == "SUCCESS")


def status_of(ui: Ui, run: str) -> str:
    return ui.ask(f'{{ runOrError(runId: "{run}") {{ ... on Run {{ status }} }} }}')["runOrError"]["status"]


def test_a_backfill_of_the_missing_experiments_launched_by_clicks_computes_them(ui: Ui) -> None:
    ui.open("/assets/s1k_dataset?view=partitions")
    ui.page.click("button:has-text('Materialize')")
    ui.page.click("button:has-text('Missing') >> nth=0")
    ui.page.click("button:has-text('Launch backfill')")
    ui.wait(lambda: {"ui-b", "ui-c"} <= materialized(ui, "s1k_dataset"), seconds=300)


def test_an_edited_file_shows_as_unsynced_on_its_partition_only_and_names_the_section(
    ui: Ui, tiny: Installation
) -> None:
    ui.wait(lambda: "ui-b" in materialized(ui, "s1k_dataset"))
    (tiny.experiments / "ui-b.yaml").write_text("extends: tiny\ndataset:\n  max_rollouts: 8\n")

    def stale(partition: str) -> Any:
        query = (
            '{ assetNodeOrError(assetKey: {path: ["s1k_dataset"]}) { ... on AssetNode { '
            f'staleStatus(partition: "{partition}") '
            f'staleCauses(partition: "{partition}") {{ reason key {{ path }} }} }} }} }}'
        )
        return ui.ask(query)["assetNodeOrError"]

    ui.wait(lambda: stale("ui-b")["staleStatus"] == "STALE")
    assert [cause["key"]["path"] for cause in stale("ui-b")["staleCauses"]] == [["params", "dataset"]]
    assert stale("ui-a")["staleStatus"] == "FRESH"


def test_the_lineage_draws_the_rooms_from_left_to_right(ui: Ui) -> None:
    ui.open("/asset-groups")
    ui.page.wait_for_selector("text=Global asset lineage")
    left: list[float] = []
    for room in ("dataset", "adapter", "activations", "sae", "contexts", "interpretations", "categories", "paper"):
        box = ui.page.locator(f"svg >> text='{room}'").first.bounding_box(timeout=PATIENCE_MS)
        assert box is not None
        left.append(box["x"])
    assert left == sorted(left)
    ui.page.screenshot(path=ui_picture("lineage"))


def ui_picture(name: str) -> str:
    """Where a person finds the screenshot."""
    folder = Path(__file__).parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"{name}.png")

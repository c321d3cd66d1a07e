"""What `lorascope serve` shows, and what it refuses."""

import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from dagster_project.experiment import Experiments
from dagster_project.plan import keys
from dagster_project.serve import application, page_address
from resources.home import Home
from resources.manifest import Manifest
from resources.store import Store

HIDDEN = "not for the web"


def put(store: Store, asset: str, key: str, files: dict[str, str]) -> None:
    workspace = store.workspace(asset, key)
    for name, text in files.items():
        (workspace.out / name).write_text(text)
    store.finish(
        Manifest(
            asset=asset,
            key=key,
            code_version=1,
            experiment="a",
            sections={},
            section_versions={},
            inputs={},
            files={},
            metrics={},
            columns=[],
            seconds=1.0,
            device="cpu",
            packages={},
            created="2026-11-22T00:00:00",
        )
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "a.yaml").write_text("description: <script>alert(1)</script>\n")
    (tmp_path / "experiments" / "bad.yaml").write_text("lora: {rank: no}\n")
    (tmp_path / "secret.txt").write_text(HIDDEN)
    found = Home(tmp_path / "home", tmp_path / "experiments")
    store = Store(found.store)
    of_a = keys(Experiments(found.experiments).load("a"))
    put(store, "feature_dashboard", of_a["feature_dashboard"], {"index.html": "the dashboard"})
    put(store, "lora_checkpoint", of_a["lora_checkpoint"], {"weights.bin": HIDDEN})
    (found.store / "feature_dashboard" / "link.txt").symlink_to(tmp_path / "secret.txt")
    return found


@pytest.fixture
def port(home: Home) -> Iterator[int]:
    server = uvicorn.Server(uvicorn.Config(application(home), host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """The path as it stands: urllib would tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_the_front_page_lists_experiments_with_their_pages_as_text(port: int, home: Home) -> None:
    status, page = get(port, "/")
    key = keys(Experiments(home.experiments).load("a"))["feature_dashboard"]
    assert status == 200
    assert f'href="store/feature_dashboard/{key}/index.html"' in page
    assert "<script>alert" not in page
    assert "bad.yaml" in page
    assert "This file cannot be run as it is." in page
    assert "lorascope run bad" not in page


def test_a_dashboard_opens_at_the_address_that_the_ui_links_to(port: int, home: Home) -> None:
    key = keys(Experiments(home.experiments).load("a"))["feature_dashboard"]
    path = page_address("feature_dashboard", key).removeprefix("http://127.0.0.1:3030")
    assert get(port, path) == (200, "the dashboard")


def test_manifests_of_any_asset_can_be_read(port: int, home: Home) -> None:
    key = keys(Experiments(home.experiments).load("a"))["lora_checkpoint"]
    status, text = get(port, f"/store/lora_checkpoint/{key}/manifest.json")
    assert status == 200
    assert key in text


@pytest.mark.parametrize(
    "path",
    [
        "/store/lora_checkpoint/{key}/weights.bin",
        "/store/feature_dashboard/../lora_checkpoint/{key}/weights.bin",
        "/store/feature_dashboard/..%2flora_checkpoint/{key}/weights.bin",
        "/store/feature_dashboard/%2e%2e/%2e%2e/%2e%2e/secret.txt",
        "/store/feature_dashboard//etc/passwd",
        "/store/feature_dashboard/link.txt",
        "/store/..%2f..%2f/x/manifest.json",
        "/store/lora_checkpoint/%2e%2e/manifest.json",
        "/store/lora_checkpoint/%00/manifest.json",
        "/store/%00/{key}/manifest.json",
        "/store/feature_dashboard/",
        "/experiments/a.yaml",
        "/comparison/",
        "/store/paper_report/{key}/index.html",
    ],
)
def test_nothing_but_pages_is_served(port: int, home: Home, path: str) -> None:
    key = keys(Experiments(home.experiments).load("a"))["lora_checkpoint"]
    status, text = get(port, path.format(key=key))
    assert status in (400, 404)
    assert HIDDEN not in text


def test_another_name_for_this_machine_is_refused(port: int) -> None:
    assert get(port, "/", host="evil.example")[0] == 400
    assert get(port, "/", host="localhost")[0] == 200

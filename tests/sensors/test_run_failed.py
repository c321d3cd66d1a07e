"""A real run that failed leaves a digest with the worker's last words, posted where the user wants it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resources.errors import BadInput
from resources.home import Home
from resources.sources import PROJECT
from sensors.run_failed import TAIL, WEBHOOK, run_failed

WORDS = 60
"""Lines that the dying worker writes."""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An installation in which `lorascope run e s1k_dataset` failed: its worker spoke and died."""
    folder = tmp_path_factory.mktemp("failed")
    home = Home(folder / "home", folder / "experiments")
    home.experiments.mkdir()
    (home.experiments / "e.yaml").write_text((PROJECT / "experiments" / "mini.yaml").read_text())
    python = folder / "dying-python"
    python.write_text(
        f"#!/bin/sh\necho 'to stdout'\nfor i in $(seq 1 {WORDS}); do echo \"word $i <of the node>\" >&2; done\nexit 3\n"
    )
    python.chmod(0o755)
    (folder / "compute.yaml").write_text(f"python: {python}\ngpus: 0\nlease_folder: {folder}/leases\n")
    environment = {
        **os.environ,
        "LORASCOPE_HOME": str(home.root),
        "LORASCOPE_EXPERIMENTS": str(home.experiments),
        "LORASCOPE_COMPUTE": str(folder / "compute.yaml"),
    }
    command = [Path(sys.executable).with_name("lorascope"), "run", "e", "s1k_dataset"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr[-3000:]
    return home


def tell(home: Home, patch: pytest.MonkeyPatch) -> Path:
    """Let the sensor hear of the failed run; the digest's file."""
    patch.setenv("LORASCOPE_HOME", str(home.root))
    patch.setenv("LORASCOPE_EXPERIMENTS", str(home.experiments))
    patch.setenv("DAGSTER_HOME", str(home.dagster))
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        event = next(
            entry.dagster_event
            for entry in instance.all_logs(run.run_id)
            if entry.dagster_event is not None and entry.dagster_event.is_run_failure
        )
        with dg.build_run_status_sensor_context("run_failed", event, instance, run) as context:
            run_failed(context.for_run_failure())
    return home.root / "failures" / f"{run.run_id}.md"


def test_the_digest_says_what_failed_for_whom_and_ends_with_the_workers_log(
    failed: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    path = tell(failed, monkeypatch)
    text = path.read_text()
    assert text.startswith(f"# s1k_dataset failed for e\n\nRun {path.stem}\n")
    assert "## s1k_dataset" in text
    assert "s1k_dataset ended with exit code 3 and left no result.json" in text
    log = text[text.index("### s1k_dataset-") :]
    assert "    to stdout\n" in log
    assert f"    word {WORDS} <of the node>" in log
    assert f"    word {WORDS - TAIL + 1} <" in log
    assert f"    word {WORDS - TAIL} <" not in log
    assert "Traceback" not in text and "Stack Trace" not in text


@pytest.mark.parametrize(
    ("selected", "heading"),
    [
        ([], "# __ASSET_JOB failed for mini"),
        (["lora_checkpoint", "batchtopk_sae"], "# batchtopk_sae, lora_checkpoint failed for mini"),
        (["a", "b", "c", "d"], "# a, b and 2 more failed for mini"),
    ],
)
def test_the_digest_of_a_run_that_the_ui_launched_is_headed_by_its_assets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selected: list[str], heading: str
) -> None:
    home = Home(tmp_path / "home", PROJECT / "experiments")
    home.dagster.mkdir(parents=True)
    (home.dagster / "dagster.yaml").touch()
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        keys = frozenset(map(dg.AssetKey, selected))
        run = dg.DagsterRun("__ASSET_JOB", asset_selection=keys or None, tags={"dagster/partition": "mini"})
        instance.add_run(run)
        instance.report_run_failed(run)
    assert tell(home, monkeypatch).read_text().startswith(heading + "\n")


def test_a_run_that_failed_before_its_job_shows_no_other_experiments_log(
    failed: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(Path(shutil.copytree(failed.root, tmp_path / "home")), failed.experiments)
    (run,) = home.runs.glob("s1k_dataset-*")
    run.rename(home.runs / "s1k_dataset-0123456789abcdef0123")
    text = tell(home, monkeypatch).read_text()
    assert "## s1k_dataset" in text and "###" not in text


def test_a_run_whose_experiment_is_gone_has_a_digest_all_the_same(
    failed: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    text = tell(Home(failed.root, tmp_path), monkeypatch).read_text()
    assert "s1k_dataset ended with exit code 3" in text and "###" not in text


def test_of_a_long_log_only_the_end_is_read(failed: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(Path(shutil.copytree(failed.root, tmp_path / "home")), failed.experiments)
    (run,) = home.runs.glob("s1k_dataset-*")
    with (run / "stdout.log").open("a") as log:
        log.write(("x" * 99 + "\n") * 300_000 + "the last word\n")
    tracemalloc.start()
    text = tell(home, monkeypatch).read_text()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "    the last word\n" in text
    assert peak < 20_000_000, "of 30 MB"


class Hook(HTTPServer):
    """A server on loopback that keeps what is posted to it: content type and body."""

    allow_reuse_address = True

    def __init__(self, port: int = 0, status: int = 200) -> None:
        posted = self.posted = list[tuple[str | None, bytes]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posted.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        super().__init__(("127.0.0.1", port), Handler)


@contextmanager
def listening(hook: Hook) -> Iterator[Hook]:
    with hook:
        thread = threading.Thread(target=hook.serve_forever)
        thread.start()
        try:
            yield hook
        finally:
            hook.shutdown()
            thread.join()


def test_the_digest_is_posted_to_the_webhook(failed: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Hook()) as hook:
        monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{hook.server_port}/hook")
        path = tell(failed, monkeypatch)
    ((kind, body),) = hook.posted
    assert kind == "application/json"
    assert json.loads(body) == {"text": path.read_text()}


def test_a_webhook_that_is_down_for_a_moment_gets_the_digest(failed: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hook() as found:
        port = found.server_port
    monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{port}/hook")
    connect, back = socket.create_connection, list[Hook]()

    def first_refused(*args: Any, **keywords: Any) -> socket.socket:
        try:
            return connect(*args, **keywords)
        except ConnectionRefusedError:
            if not back:
                back.append(servers.enter_context(listening(Hook(port))))
            raise

    monkeypatch.setattr(socket, "create_connection", first_refused)
    with ExitStack() as servers:
        tell(failed, monkeypatch)
    assert len(back[0].posted) == 1


def test_a_webhook_that_refuses_the_digest_is_told_without_its_address(
    failed: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(Hook(status=403)) as hook:
        monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{hook.server_port}/secret")
        with pytest.raises(BadInput, match=r"^LORASCOPE_WEBHOOK refused the digest: 403 Forbidden$"):
            tell(failed, monkeypatch)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("file:///etc/passwd", "LORASCOPE_WEBHOOK must be an http or https address"),
        ("http://127.0.0.1:9/hook", "could not be posted to LORASCOPE_WEBHOOK: .*refused"),
        ("https://127.0.0.1:hook", "could not be posted to LORASCOPE_WEBHOOK: Invalid port: 'hook'"),
        ("https://[hooks.example.com/x", "could not be posted to LORASCOPE_WEBHOOK: .*not known"),
        (f"http://{'a' * 64}.com/hook", "could not be posted to LORASCOPE_WEBHOOK: .*too long"),
    ],
)
def test_a_webhook_that_cannot_be_reached_is_told_and_the_digest_is_there_all_the_same(
    failed: Home, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setenv(WEBHOOK, address)
    (failed.root / "failures").mkdir(exist_ok=True)
    for path in (failed.root / "failures").iterdir():
        path.unlink()
    with pytest.raises(BadInput, match=says):
        tell(failed, monkeypatch)
    assert len(list((failed.root / "failures").iterdir())) == 1

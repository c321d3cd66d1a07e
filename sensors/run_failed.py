"""A failed run leaves a digest a person can read: what failed, why, and the end of the worker's log."""

import json
import os
import urllib.request
from pathlib import Path

import dagster as dg

from resources.home import find_home

TAIL = 40
"""Lines of each worker log in the digest."""
WEBHOOK = "LORASCOPE_WEBHOOK"
"""Environment variable: an http(s) address that gets `{"text": digest}` (the form of Slack and Mattermost)."""


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=10,
    description="Writes a digest of every failed run, and posts it when LORASCOPE_WEBHOOK is set.",
)
def run_failed(context: dg.RunFailureSensorContext) -> None:
    """Write `failures/<run id>.md` under LORASCOPE_HOME."""
    home = find_home()
    text = _digest(context, home.runs)
    path = home.root / "failures" / f"{context.dagster_run.run_id}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    context.log.info(f"digest in {path}")
    address = os.environ.get(WEBHOOK)
    if address:
        _post(address, text)


def _digest(context: dg.RunFailureSensorContext, runs: Path) -> str:
    run = context.dagster_run
    partition = run.tags.get("dagster/partition", "no partition")
    lines = [f"# {run.job_name} failed for {partition}", "", f"Run {run.run_id}", ""]
    for event in context.get_step_failure_events():
        reason = event.step_failure_data.error_display_string.strip() if event.step_failure_data else ""
        lines += [f"## {event.step_key}", "", reason, ""]
        lines += [
            part for log in _logs(runs, event.step_key) for part in (f"### {log.parent.name}", "", _tail(log), "")
        ]
    return "\n".join(lines)


def _logs(runs: Path, asset: str | None) -> list[Path]:
    """The newest worker log of the asset."""
    logs = sorted(runs.glob(f"{asset}-*/log"), key=lambda path: path.stat().st_mtime)
    return logs[-1:]


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-TAIL:]
    return "\n".join(f"    {line}" for line in lines)


def _post(address: str, text: str) -> None:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{WEBHOOK} must be an http or https address")
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310 (checked above)
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310 (checked above)
        pass

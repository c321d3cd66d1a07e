"""A failed run leaves a digest a person can read: what failed, why, and the end of the worker's log."""

import os

import dagster as dg

from dagster_project.experiment import Experiments
from dagster_project.failure import reason
from dagster_project.plan import keys, run_folder
from resources.errors import BadInput, one_line
from resources.home import Home, find_home
from resources.launcher.rundir import RunDir
from resources.launcher.tail import last_text

TAIL = 40
"""Lines of each worker log in the digest."""
TAIL_BYTES = 1 << 16
"""Of each log in which these lines are looked for."""
NAMED = 3
"""Assets that a heading names before it counts them."""
WEBHOOK = "LORASCOPE_WEBHOOK"
"""Environment variable: an http(s) address that gets `{"text": digest}` (the form of Slack and Mattermost)."""

CONNECTS = 3
"""Further tries to reach that address: Dagster tells a sensor of a failed run once."""


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=10,
    description="Writes a digest of every failed run, and posts it when LORASCOPE_WEBHOOK is set.",
)
def run_failed(context: dg.RunFailureSensorContext) -> None:
    """Write `failures/<run id>.md` under LORASCOPE_HOME.

    Raises:
        BadInput: when the digest cannot be posted; it is written all the same.
    """
    home = find_home()
    text = _digest(context, home)
    path = home.root / "failures" / f"{context.dagster_run.run_id}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    context.log.info(f"digest in {path}")
    address = os.environ.get(WEBHOOK)
    if address:
        _post(address, text)


def _digest(context: dg.RunFailureSensorContext, home: Home) -> str:
    run = context.dagster_run
    partition = run.tags.get("dagster/partition", "no partition")
    lines = [f"# {_what(run)} failed for {partition}", "", f"Run {run.run_id}", ""]
    steps = context.get_step_failure_events()
    if not steps:  # it was killed or interrupted, or could not begin
        lines += [(context.failure_event.message or "").strip(), ""]
    for event in steps:
        lines += [f"## {event.step_key}", "", reason(event).strip(), ""]
        folder = _worker(home, partition, event.step_key or "")
        if folder is not None:
            lines += [f"### {folder.path.name}", "", _tail(folder), ""]
    return "\n".join(lines)


def _what(run: dg.DagsterRun) -> str:
    """The assets that it was to make; its job, which Dagster gives a name of its own when the UI launches assets."""
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    if len(assets) > NAMED:
        return f"{', '.join(assets[:2])} and {len(assets) - 2} more"
    return ", ".join(assets) or run.job_name


def _worker(home: Home, experiment: str, asset: str) -> RunDir | None:
    """The run directory of the failed worker, unless the run failed before it had one."""
    try:
        path = run_folder(home.runs, asset, keys(Experiments(home.experiments).load(experiment))[asset])
    except (BadInput, KeyError):
        return None
    return RunDir(path) if path.exists() else None


def _tail(run: RunDir) -> str:
    """The last lines of both its outputs."""
    texts = [last_text(path, TAIL_BYTES).splitlines() for path in (run.stdout, run.stderr)]
    return "\n".join(f"    {line}" for lines in texts for line in lines[-TAIL:])


def _post(address: str, text: str) -> None:
    import httpx2

    if not address.startswith(("http://", "https://")):
        raise BadInput(f"{WEBHOOK} must be an http or https address")
    try:
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=CONNECTS), timeout=10) as client:
            response = client.post(address, json={"text": text})
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:  # the last: a host that is none
        raise BadInput(f"the digest could not be posted to {WEBHOOK}: {one_line(str(error))}") from error
    if not response.is_success:  # in our words: httpx2's name the address, whose path is often a secret
        raise BadInput(f"{WEBHOOK} refused the digest: {response.status_code} {response.reason_phrase}")

"""A step process of its own: python -m tests.resources.launcher.kept STEP_JSON

While a file `canceling` lies beside the JSON, the run counts as being canceled by a user.
"""

import json
import sys
from pathlib import Path

import dagster as dg

from dagster_project.launch import launch
from resources.job import Job
from resources.launcher.deployment import Deployment


def said(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """The lines of a run's log that were written by hand, not by Dagster."""
    return [entry.user_message for entry in instance.all_logs(run_id) if entry.dagster_event is None]


def main() -> int:
    given = json.loads(Path(sys.argv[1]).read_text())
    canceling = Path(sys.argv[1]).with_name("canceling")

    @dg.asset
    def notes(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        find = context.instance.get_run_by_id

        def found(run_id: str) -> dg.DagsterRun | None:
            run = find(run_id)
            return run.with_status(dg.DagsterRunStatus.CANCELING) if run and canceling.exists() else run

        context.instance.get_run_by_id = found
        deployment = Deployment.model_validate(given["deployment"])
        launch(context, Job.model_validate(given["job"]), Path(given["run_dir"]), deployment)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        success = dg.materialize([notes], instance=instance, raise_on_error=False).success
    print("the run succeeded" if success else "the run failed", flush=True)
    return 0 if success else 1


if __name__ == "__main__":
    sys.exit(main())

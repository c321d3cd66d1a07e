"""A run whose process was killed outright ends while the UI is open, and gives back its place in the queue."""

import dagster as dg

from dagster_project.process import fail_killed_runs


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    target=None,
    description="Fails the runs whose process was killed before it could say so.",
)
def killed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One tick."""
    failed = fail_killed_runs(context.instance)
    return dg.SkipReason(f"failed {', '.join(failed)}" if failed else "every unfinished run has its process")

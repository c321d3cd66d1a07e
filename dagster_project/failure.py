"""Why a step failed, in the words that were meant for people."""

import dagster as dg

from dagster_project.launch import NODE_RETRIES
from resources.launcher.attempt import JobLost


def reason(event: dg.DagsterEvent) -> str:
    """One sentence where we raised it ourselves, Dagster's account where nobody foresaw it."""
    data = event.step_failure_data
    if data.error is not None and data.error.cls_name == "DagsterExecutionInterruptedError":
        return "stopped. What is finished is kept; the same command goes on from there"
    lost = data.error.cause if data.error is not None else None
    if lost is not None and lost.cls_name == JobLost.__name__:
        return f"after {NODE_RETRIES + 1} attempts: {lost.message.partition(': ')[2].strip()}"
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    return data.error_display_string

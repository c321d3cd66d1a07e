"""Why a step failed, in the words that were meant for people."""

import dagster as dg


def reason(event: dg.DagsterEvent) -> str:
    """One sentence where we raised it ourselves, Dagster's account where nobody foresaw it."""
    data = event.step_failure_data
    if data.error is not None and data.error.cls_name == "DagsterExecutionInterruptedError":
        return "stopped. What is finished is kept; the same command goes on from there"
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    return data.error_display_string

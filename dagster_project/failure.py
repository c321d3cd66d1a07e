"""Why a step failed, in the words that were meant for people."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dagster_project.launch import NODE_RETRIES
from resources.disk import disk_told
from resources.errors import BadInput
from resources.launcher.attempt import JobLost


@contextmanager
def failing_in_words() -> Iterator[None]:
    """Bad input, and a disk that is full or refuses, end the step at once.

    Raises:
        dagster.Failure: one sentence; trying again would fail again.
    """
    try:
        with disk_told():
            yield
    except BadInput as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def reason(event: dg.DagsterEvent) -> str:
    """One sentence where we raised it ourselves, Dagster's account where nobody foresaw it."""
    data = event.step_failure_data
    error, told = data.error, data.user_failure_data
    if error and error.cls_name == "DagsterExecutionInterruptedError":
        return "stopped. What is finished is kept; the same command goes on from there"
    if error and error.cause and error.cause.cls_name == JobLost.__name__:
        return f"after {NODE_RETRIES + 1} attempts: {error.cause.message.partition(': ')[2].strip()}"
    if told and told.description:
        return told.description
    return data.error_display_string

"""What a person is told of a failed step."""

import dagster as dg

from dagster_project import launch
from dagster_project.failure import reason
from resources.launcher.attempt import JobLost

SENTENCE = "the node of job 7 (notes) failed"


def test_a_job_that_was_lost_as_often_as_it_was_tried_is_told_in_its_own_words() -> None:
    @dg.asset
    def notes() -> None:
        with launch._as_dagster_says():
            raise JobLost(SENTENCE)

    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([notes], instance=instance, raise_on_error=False)
    (event,) = (event for event in done.all_events if event.is_step_failure)
    assert reason(event) == f"after 3 attempts: {SENTENCE}"

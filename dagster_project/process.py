"""Which process works on a run, noted on the run: Dagster never learns that one was killed outright.

Such a run would stay unfinished for good, and take a place among those that may go on at once.
"""

import os
import socket

import dagster as dg

from resources.launcher.processes import exists, identity

PROCESS_TAG = ".dagster/lorascope_process"
"""Run tag: host, process and run. The run, because one that repeats another in the UI inherits its tags.

The UI shows no tag that begins so: in its list of runs this one would not fit.
"""
AT_WORK = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def process_tag(run_id: str) -> dict[str, str]:
    """The tag of a run that this process works on."""
    return {PROCESS_TAG: f"{socket.gethostname()}/{identity(os.getpid())}/{run_id}"}


def is_gone(run: dg.DagsterRun) -> bool:
    """The process that the run names was one of this host, and lives no more."""
    host, _, process = run.tags.get(PROCESS_TAG, "").partition("/")
    return host == socket.gethostname() and not exists(process.partition("/")[0])


def other_host(run: dg.DagsterRun) -> str:
    """The machine on which a run works, when it is not this one; empty otherwise."""
    host = run.tags.get(PROCESS_TAG, "").partition("/")[0]
    return "" if host == socket.gethostname() else host


def fail_killed_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report every run as failed whose process on this host was killed before it could say so; the runs' ids."""
    failed: list[str] = []
    for run in instance.get_runs(dg.RunsFilter(statuses=AT_WORK)):
        if run.tags.get(PROCESS_TAG, "").endswith(f"/{run.run_id}") and is_gone(run):
            # Looked at again: it may have ended well between the listing and the end of its process.
            found = instance.get_run_by_id(run.run_id)
            if found is not None and not found.is_finished:
                instance.report_run_failed(found, _farewell(found))
                failed.append(run.run_id)
    return failed


def _farewell(run: dg.DagsterRun) -> str:
    host, process, _ = run.tags[PROCESS_TAG].split("/")
    pid = process.partition(":")[0]
    return f"process {pid} on {host}, which worked on this run, was killed: run it again, what is finished is kept"

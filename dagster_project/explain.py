"""`lorascope plan EXPERIMENT --explain`: what every stage would run, hold and take, for review before anything runs."""

from pathlib import Path

from dagster_project.compute_asset import job_of
from dagster_project.experiment import Experiment
from dagster_project.plan import keys, run_folder
from dagster_project.rooms import STAGES
from resources.errors import BadInput
from resources.home import find_home
from resources.job import Job
from resources.launcher.attempt import order_of
from resources.launcher.deployment import Deployment, load_deployment
from resources.launcher.fit import estimate
from resources.memory import GIB, USABLE
from resources.stage import Stage
from resources.store import Store, Workspace


def explain_stages(experiment: Experiment) -> str:
    """One paragraph per stage: what it asks of a node, the exact command, GPU memory per rank, and hours."""
    deployment, home = load_deployment(), find_home()
    found = keys(experiment)
    paragraphs = [_paragraph(stage, experiment, found, Store(home.store), home.runs, deployment) for stage in STAGES]
    hours = sum(stage.needs.minutes for stage in STAGES) / 60
    total = f"walltime asked of the scheduler over all stages, one after another: {hours:.1f} h"
    return "\n\n".join([*paragraphs, total])


def _paragraph(
    stage: Stage, experiment: Experiment, found: dict[str, str], store: Store, runs: Path, deployment: Deployment
) -> str:
    key = found[stage.asset]
    partial = store.root / ".partial" / stage.asset / key
    job = job_of(stage, experiment, found, store, Workspace(partial / "out", partial / "scratch"), deployment)
    run_dir = run_folder(runs, stage.asset, key)
    command = deployment.launcher().shown(order_of(job, run_dir, deployment.python))
    return "\n".join(
        [stage.asset, *(f"  {line}" for line in (_asks(job), *command, _memory(job, deployment), _time(job)))]
    )


def _asks(job: Job) -> str:
    gpus = f"{job.gpus} GPUs, " if job.gpus else ""
    return f"{gpus}{job.processes} processes x {job.threads} threads"


def _memory(job: Job, deployment: Deployment) -> str:
    if not job.gpus:
        return "GPU memory: none"
    found = estimate(job)
    if found is None:
        return "GPU memory per rank: not modelled"
    room = f"of {USABLE * deployment.gpu_memory_gib:.1f} GiB that can be filled"
    try:
        found.check(job.asset, deployment.gpu_memory_gib)
        verdict = "fits"
    except BadInput:
        verdict = "DOES NOT FIT, will be refused"
    return f"GPU memory per rank: {found.bytes / GIB:.1f} GiB {room}, {verdict}: {found.explain()}"


def _time(job: Job) -> str:
    return f"walltime asked: {job.minutes / 60:.1f} h"

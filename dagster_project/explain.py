"""`lorascope plan EXPERIMENT --explain`: what every stage would run, hold and take, for review before anything runs."""

from pathlib import Path
from pkgutil import resolve_name

from assets.dataset.config import S1K_DATASET, DatasetConfig
from assets.dataset.estimate import expected
from dagster_project.compute_asset import job_of
from dagster_project.experiment import Experiment
from dagster_project.plan import keys, num_units, run_folder
from dagster_project.rooms import STAGES
from resources.errors import BadInput
from resources.home import find_home
from resources.job import Job
from resources.launcher.attempt import order_of
from resources.launcher.deployment import Deployment, load_deployment
from resources.launcher.fit import fills
from resources.memory import GIB, USABLE, architecture
from resources.models import ModelConfig
from resources.section import section_of
from resources.stage import Stage
from resources.store import Store
from resources.work import Corpus, Setting, WorkEstimate


def explain_stages(experiment: Experiment) -> str:
    """One paragraph per stage: what it asks of a node, the exact command, GPU memory per rank, and hours."""
    deployment, home = load_deployment(), find_home()
    found, store = keys(experiment), Store(home.store)
    corpus = _corpus(experiment, store, found)
    read = (
        f"all stages read {corpus.rollouts} rollouts, {corpus.tokens} tokens ({corpus.source})" if corpus else _UNREAD
    )
    jobs = {stage.asset: job_of(stage, experiment, found, store, deployment) for stage in STAGES}
    hours = {stage.asset: hours_of(stage, experiment, corpus, jobs[stage.asset].gpus) for stage in STAGES}
    paragraphs = [
        f"{_paragraph(stage, experiment, jobs[stage.asset], home.runs, deployment)}\n{_time(stage, hours[stage.asset])}"
        for stage in STAGES
    ]
    return "\n\n".join([read, *paragraphs, _total(hours)])


_UNREAD = "hours: not estimated, how many tokens there are is known once s1k_dataset is computed"


def _corpus(experiment: Experiment, store: Store, found: dict[str, str]) -> Corpus | None:
    """What the dataset turned out to be, else what is expected of it."""
    manifest = store.peek(S1K_DATASET.asset, found[S1K_DATASET.asset])
    if manifest is None:
        return expected(section_of(experiment.sections, DatasetConfig))
    rollouts, tokens = (int(str(manifest.metrics[name])) for name in ("rollouts", "tokens"))
    return Corpus(rollouts, tokens, "counted")


def hours_of(stage: Stage, experiment: Experiment, corpus: Corpus | None, gpus: int) -> WorkEstimate | None:
    """What the room's account says of its hours on so many GPUs, or of waiting for paid answers; None: no account."""
    if corpus is None or not stage.needs.time_model or not (gpus or stage.needs.cost_model):
        return None
    model = resolve_name(stage.needs.time_model)
    if stage.needs.cost_model:
        units = num_units(experiment)
        return None if units is None else model(experiment.sections, units, experiment.compute)
    sizes = architecture(section_of(experiment.sections, ModelConfig))
    return None if sizes is None else model(Setting(experiment.sections, sizes, experiment.compute, gpus, corpus))


def _time(stage: Stage, found: WorkEstimate | None) -> str:
    asked = f"walltime asked {stage.needs.minutes / 60:.1f} h"
    if found is None:
        return f"  hours: not modelled; {asked}"
    return f"  hours: {found.hours:.2f}, {asked}: {found.how}"


def _total(hours: dict[str, WorkEstimate | None]) -> str:
    known = [found.hours for found in hours.values() if found is not None]
    return f"one after another: {sum(known):.1f} h for the {len(known)} of {len(hours)} stages that are modelled"


def _paragraph(stage: Stage, experiment: Experiment, job: Job, runs: Path, deployment: Deployment) -> str:
    run_dir = run_folder(runs, job.asset, job.key)
    place = deployment.for_gpus(job.gpus)
    command = place.launcher().shown(order_of(job, run_dir, place.python))
    shown = (_asks(job), *command, _memory(job, deployment), *_disk(stage, experiment, job))
    return "\n".join([stage.asset, *(f"  {line}" for line in shown)])


def _asks(job: Job) -> str:
    gpus = f"{job.gpus} GPUs, " if job.gpus else ""
    return f"{gpus}{job.processes} processes x {job.threads} threads"


def _disk(stage: Stage, experiment: Experiment, job: Job) -> list[str]:
    found = fills(stage.needs, experiment.sections, job.compute, job.gpus)
    return [] if found is None else [f"disk: {found.explain()}"]


def _memory(job: Job, deployment: Deployment) -> str:
    if not job.gpus:
        return "GPU memory: none"
    found = job.memory
    if found is None:
        return "GPU memory per rank: not modelled"
    room = f"of {USABLE * deployment.gpu_gib:.1f} GiB that can be filled"
    try:
        found.check(job.asset, deployment.gpu_gib)
        verdict = "fits"
    except BadInput:
        verdict = "DOES NOT FIT, will be refused"
    return f"GPU memory per rank: {found.bytes / GIB:.1f} GiB {room}, {verdict}: {found.explain()}"

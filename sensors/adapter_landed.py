"""An adapter put into the watched folder becomes an experiment that uses it instead of training one."""

import json
import os
import re
from pathlib import Path

import dagster as dg

from dagster_project.experiment import NAME, Experiments
from resources.errors import BadInput
from resources.home import Home, find_home

WATCHED = "LORASCOPE_ADAPTERS"
"""Environment variable: the watched folder; `adapters/` under LORASCOPE_HOME when unset."""
FILES = ("adapter_config.json", "adapter_model.safetensors")


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    target=None,
    description="Turns a PEFT adapter that lands in LORASCOPE_HOME/adapters into an experiment file.",
)
def adapter_landed(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One tick: write `adapter-<folder>.yaml` for each whole adapter that has none yet.

    Raises:
        BadInput: naming the adapters that fit no experiment's base model.
    """
    home = find_home()
    written, unfit = land(home, watched_folder(home))
    for path in written:
        context.log.info(f"wrote {path}")
    if unfit:
        raise BadInput("; ".join(unfit))
    return dg.SkipReason(f"{len(written)} experiments written" if written else "no new adapter")


def watched_folder(home: Home) -> Path:
    """Where adapters land."""
    return Path(os.environ.get(WATCHED) or home.root / "adapters")


def land(home: Home, watched: Path) -> tuple[list[Path], list[str]]:
    """Write an experiment per new adapter; returns the files written and what is wrong with the rest."""
    written: list[Path] = []
    unfit: list[str] = []
    for folder in sorted(watched.glob("*")):
        path = home.experiments / f"adapter-{_slug(folder.name)}.yaml"
        if path.exists() or not all((folder / name).is_file() for name in FILES):
            continue
        try:
            parent = _parent(Experiments(home.experiments), folder)
        except BadInput as error:
            unfit.append(str(error))
            continue
        temporary = path.with_suffix(".tmp")
        temporary.write_text(
            f"extends: {parent}\ndescription: Uses the adapter that landed in {folder.name}.\n"
            f"lora:\n  source: {json.dumps(str(folder.absolute()))}\n"
        )
        temporary.replace(path)
        written.append(path)
    return written, unfit


def _slug(name: str) -> str:
    """A partition key for any folder name."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    assert NAME.fullmatch(f"adapter-{slug}")  # by construction
    return slug


def _parent(experiments: Experiments, folder: Path) -> str:
    """The first root experiment on the adapter's base model."""
    base = json.loads((folder / FILES[0]).read_text()).get("base_model_name_or_path")
    for name in experiments.names():
        try:
            experiment = experiments.load(name)
        except BadInput:
            continue
        if experiment.parent is None and _same_model(str(experiment.values("model")["name"]), str(base)):
            return name
    raise BadInput(f"the adapter {folder} is for {base}, and no experiment has that base model: add one first")


def _same_model(ours: str, theirs: str) -> bool:
    """Hub ids are equal; local folders end alike."""
    return theirs == ours or Path(theirs).name == Path(ours).name

"""An adapter put into the watched folder becomes an experiment that uses it instead of training one."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import dagster as dg
import yaml

from dagster_project.experiment import NAME, Experiments
from resources.adapters import CONFIG, WEIGHTS
from resources.errors import BadInput, one_line
from resources.home import Home, find_home
from resources.models import same_model
from resources.strict_yaml import read_yaml
from resources.whole import whole

WATCHED = "LORASCOPE_ADAPTERS"
"""Environment variable: the watched folder; `adapters/` under LORASCOPE_HOME when unset."""
FILES = (CONFIG, WEIGHTS)


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    target=None,
    description="Turns a PEFT adapter that lands in LORASCOPE_HOME/adapters into an experiment file.",
)
def adapter_landed(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One tick: write `adapter-<folder>.yaml` for each whole adapter that has none yet.

    Raises:
        BadInput: naming the adapters that cannot become experiments.
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
    first: dict[Path, Path] = {}
    models = cache(lambda: _models(Experiments(home.experiments)))
    for folder in _whole_adapters(watched):
        path = home.experiments / f"adapter-{_slug(folder.name)}.yaml"
        if first.setdefault(path, folder) != folder:
            unfit.append(f"{first[path]} and {folder} would both be {path.stem}: rename one of them")
        elif not path.exists():
            try:
                _write(path, _parent(models(), folder), folder)
            except BadInput as error:
                unfit.append(str(error))
                continue
            written.append(path)
    return written, unfit


def _whole_adapters(watched: Path) -> Iterator[Path]:
    """By name; a folder that is still being copied is none yet."""
    for folder in sorted(watched.glob("*")):
        if all((folder / name).is_file() for name in FILES):
            yield folder


def _write(path: Path, parent: str, folder: Path) -> None:
    """The experiment that uses the adapter, or no file at all."""
    words = f"Uses the adapter that landed in {folder.name}."
    values = {"extends": parent, "description": words, "lora": {"source": str(folder.absolute())}}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=math.inf)
    try:
        with whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
            read_yaml(partial)
    except BadInput as error:
        raise BadInput(f"the adapter {one_line(str(folder))} needs another name: {error}") from error


def _slug(name: str) -> str:
    """A partition key for any folder name."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    assert NAME.fullmatch(f"adapter-{slug}")  # by construction
    return slug


def _models(experiments: Experiments) -> list[tuple[int, str, str]]:
    """Number of files, name and model of every valid experiment."""
    found: list[tuple[int, str, str]] = []
    for name in experiments.names():
        with suppress(BadInput):
            experiment = experiments.load(name)
            found.append((len(experiment.files), name, str(experiment.values("model")["name"])))
    return found


def _parent(models: Iterable[tuple[int, str, str]], folder: Path) -> str:
    """Of the experiments on the adapter's base model that with the fewest ancestors, and of these the first."""
    base = _base_model(folder / CONFIG)
    fitting = [(files, name) for files, name, model in models if same_model(model, base)]
    if not fitting:
        raise BadInput(f"the adapter {folder} is for {base}, and no experiment has that base model: add one first")
    return min(fitting)[1]


def _base_model(config: Path) -> str:
    try:
        return str(json.loads(config.read_bytes()).get("base_model_name_or_path"))
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{config} is no adapter's config ({error}): let its copy finish, or copy it anew") from error

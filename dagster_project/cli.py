"""The command line: `lorascope run mini`, `lorascope plan mini`, `lorascope show mini benchmark_scores`, ..."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from assets.dashboard.config import DashboardConfig
from assets.dataset.config import DatasetConfig
from dagster_project.consistency import contradictions, refuse
from dagster_project.experiment import Experiment, Experiments
from dagster_project.notebook import open_experiment
from dagster_project.plan import beyond_caps, plan, total
from dagster_project.rooms import STAGES
from dagster_project.sweep import parse_knob, write_sweep
from resources.disk import disk_told
from resources.errors import BadInput
from resources.home import Home, find_home
from resources.llm.cache import FILE_NAME, export_cache, import_cache, list_cache
from resources.models import ModelConfig
from resources.ports import HOST, PAGES_PORT, UI_PORT, check_free
from resources.section import section_of
from resources.store import Store

if TYPE_CHECKING:
    from dagster import DagsterInstance

P = ParamSpec("P")
R = TypeVar("R")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
asset_choice = click.Choice([stage.asset for stage in STAGES])
PORT = click.IntRange(1, 65535)
asset_argument = click.argument("asset", type=asset_choice, metavar="ASSET")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="lorascope")
def main() -> None:
    """The paper "Rank-1 LoRAs Encode Interpretable Reasoning Signals" as a Dagster project."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the encoding of an old terminal (Latin-1, GBK) lacks some signs


def short_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Bad input is one sentence on standard error and exit status 2, never a stack trace."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with disk_told():
                return command(*args, **kwargs)
        except BadInput as error:
            click.echo(f"lorascope: {error}", err=True)
            sys.exit(2)

    return run


def _load(name: str) -> Experiment:
    return Experiments(find_home().experiments).load(name)


def _store() -> Store:
    return Store(find_home().store)


@main.command("run")
@click.argument("experiment")
@click.argument("assets", nargs=-1, type=asset_choice, metavar="[ASSET]...")
@as_json
@short_errors
def run_command(experiment: str, assets: tuple[str, ...], as_json: bool) -> None:
    """Materialise the assets of EXPERIMENT (all, or those named).

    Goes through Dagster, as the UI does; what is finished comes from the store.
    """
    from dagster_project.run import run_experiment

    outcome = run_experiment(_load(experiment), find_home(), assets)
    click.echo(json.dumps(outcome.row(), indent=1) if as_json else outcome.summary())
    sys.exit(0 if outcome.success else 1)


@main.command("plan")
@click.argument("experiment")
@click.option("--explain", is_flag=True, help="Print each stage's command, memory per rank and hours, for review.")
@as_json
@short_errors
def plan_command(experiment: str, explain: bool, as_json: bool) -> None:
    """Print hit or miss per asset, why, and what it would cost.

    Time and dollars are estimates; nothing runs.
    """
    loaded = _load(experiment)
    planned = plan(loaded, _store())
    if as_json:
        click.echo(json.dumps([asdict(line) for line in planned], indent=1))
        return
    for line in planned:
        seconds = "?" if line.seconds is None else f"{line.seconds:.0f} s"
        click.echo(f"{line.cache:4}  {line.asset:24}  {seconds:>8}  {line.key}  {line.reason}")
    sums = total(planned)
    unknown = f", {sums['unknown']} never timed" if sums["unknown"] else ""
    timed = sums["unknown"] < sums["misses"] or not sums["misses"]
    took = f"about {sums['seconds']:.0f} s" if timed else "no time known (--explain has an estimate)"
    click.echo(f"{sums['hits']} hits, {sums['misses']} misses: {took} and ${sums['cost_usd']:.2f}{unknown}")
    for sentence in beyond_caps(planned, loaded.compute):
        click.echo(sentence)
    if explain:
        from dagster_project.explain import explain_stages

        click.echo(explain_stages(loaded))
    misses = [stage for stage, line in zip(STAGES, planned, strict=True) if line.cache == "miss"]
    refuse(loaded, contradictions(loaded, misses))


@main.command("path")
@click.argument("experiment")
@asset_argument
@as_json
@short_errors
def path_command(experiment: str, asset: str, as_json: bool) -> None:
    """Print the folder of ASSET of EXPERIMENT."""
    folder = open_experiment(experiment).path(asset)
    found = {"asset": asset, "key": folder.name, "path": str(folder)}
    click.echo(json.dumps(found) if as_json else str(folder))


@main.command("show")
@click.argument("experiment")
@asset_argument
@as_json
@short_errors
def show_command(experiment: str, asset: str, as_json: bool) -> None:
    """Print the table of ASSET of EXPERIMENT, and how it was made."""
    opened = open_experiment(experiment)
    manifest, rows = opened.manifest(asset), opened.table(asset).to_pylist()
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    from dagster_project.tables import text_table

    click.echo(text_table(rows[:50]))
    if len(rows) > 50:
        click.echo(f"... {len(rows)} rows in all; --json prints every one")
    click.echo(
        f"\n{asset} {manifest.key}: {manifest.seconds:.1f} s on {manifest.device}, {manifest.size} bytes, ", nl=False
    )
    click.echo(f"code version {manifest.code_version}, computed for {manifest.experiment} at {manifest.created}")
    for name, key in manifest.inputs.items():
        click.echo(f"  from {name} {key}")


@main.command("sweep")
@click.argument("experiment")
@click.argument("knobs", nargs=-1, required=True, metavar="SECTION.KNOB=V1,V2,...")
@short_errors
def sweep_command(experiment: str, knobs: tuple[str, ...]) -> None:
    """Write an experiment file for every combination of values.

    `lorascope sweep mini sae.k=2,8 sae.seed=1,2` writes mini-k2-seed1.yaml and three more, each `extends: mini`: four
    partitions to backfill in the UI, or names for `lorascope run` and `lorascope compare`.
    """
    for name in write_sweep(Experiments(find_home().experiments), experiment, [parse_knob(knob) for knob in knobs]):
        click.echo(name)


@main.command("compare")
@click.argument("experiments", nargs=-1)
@as_json
@short_errors
def compare_command(experiments: tuple[str, ...], as_json: bool) -> None:
    """Print what differs between 2 to 20 EXPERIMENTS.

    Parameters first, then every headline number with its delta.
    """
    from dagster_project.compare import compare_experiments
    from dagster_project.tables import text_table

    found = compare_experiments(find_home(), experiments)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    tables = {
        "Parameters that differ": found.parameters,
        "Numbers": found.numbers,
        "SAEs: sparsity against what they leave unexplained": found.frontier,
        "SAEs of two seeds: latents that the other has too": found.stability,
        "Explainers of the same contexts: units by their two classes": found.agreement,
    }
    click.echo("\n\n".join(text_table(rows, title) for title, rows in tables.items() if rows))


@main.command("ui")
@click.option("--port", type=PORT, default=UI_PORT, show_default=True, help=f"Port on {HOST}.")
@short_errors
def ui_command(port: int) -> None:
    """Open Dagster's UI, on this machine only.

    With the store and the instance that `lorascope run` uses.
    """
    from dagster_project.ui import become_ui

    check_free(port)
    become_ui(port)


@main.command("serve")
@click.option(
    "--port",
    type=PORT,
    default=PAGES_PORT,
    show_default=True,
    help=f"Port on {HOST}; the UI's links expect the default.",
)
@short_errors
def serve_command(port: int) -> None:
    """Show dashboards and reports, on this machine only.

    Those of all experiments, in a browser.
    """
    from dagster_project.serve import serve

    check_free(port)
    click.echo(f"http://{HOST}:{port}/ (Ctrl-C ends)")
    serve(find_home(), port)


@main.command("export")
@click.argument("experiment")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@short_errors
def export_command(experiment: str, folder: Path) -> None:
    """Write EXPERIMENT's units in Neuronpedia's format.

    Into FOLDER: features, explanations, activations.
    """
    from assets.dashboard.neuronpedia import Artifacts, export

    opened = open_experiment(experiment)
    found = {field.name: opened.path(field.name) for field in fields(Artifacts)}
    sections = opened.experiment.sections
    model, corpus = section_of(sections, ModelConfig), section_of(sections, DatasetConfig)
    for written in export(model, corpus, section_of(sections, DashboardConfig), Artifacts(**found), folder):
        click.echo(str(written))


@main.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@short_errors
def gc_command(dry_run: bool) -> None:
    """Remove what no present experiment can reach.

    Artifacts, partitions, and abandoned temporary folders.
    """
    from dagster_project.upkeep import collect_garbage

    home = find_home()
    experiments = Experiments(home.experiments)
    with _instance(home) as instance:
        removed = collect_garbage(home, experiments, dry_run=dry_run, say=click.echo)
        for item in removed:
            click.echo(str(item))
        if instance is not None:
            _remove_partitions(instance, experiments, dry_run)
    verb = "would free" if dry_run else "freed"
    click.echo(f"{len(removed)} folders, {verb} {sum(item.size for item in removed) / 1e6:.1f} MB")


def _instance(home: Home) -> "AbstractContextManager[DagsterInstance | None]":
    """Opened before anything is deleted, if it was ever made."""
    if not (home.dagster / "dagster.yaml").exists():
        return nullcontext()
    from dagster_project.instance import opened

    return opened(home.dagster)


def _remove_partitions(instance: "DagsterInstance", experiments: Experiments, dry_run: bool) -> None:
    from dagster_project.retired import remove_retired, retired

    for name in (retired if dry_run else remove_retired)(instance, experiments):
        click.echo(f"partition {name}  its file is gone")


@main.group("cache")
def cache_group() -> None:
    """List, export or import answers of paid models."""


@cache_group.command("list")
@as_json
@short_errors
def cache_list_command(as_json: bool) -> None:
    """Print answers, tokens and dollars per provider, model and prompt version."""
    from dagster_project.tables import text_table

    rows = list_cache(find_home().root / FILE_NAME)
    click.echo(json.dumps(rows) if as_json else text_table(rows) if rows else "no answers yet")


@cache_group.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@short_errors
def cache_export_command(file: Path) -> None:
    """Write every answer as one JSON line of FILE."""
    click.echo(f"{export_cache(find_home().root / FILE_NAME, file)} answers written to {file}")


@cache_group.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@short_errors
def cache_import_command(file: Path) -> None:
    """Add the answers of an exported FILE."""
    click.echo(f"{import_cache(find_home().root / FILE_NAME, file)} new answers")


@main.command("verify")
@short_errors
def verify_command() -> None:
    """Hash every file of the store again.

    Damaged artifacts are named and set aside.
    """
    from dagster_project.upkeep import verify_store

    sys.exit(1 if verify_store(_store(), click.echo) else 0)


if __name__ == "__main__":
    main()

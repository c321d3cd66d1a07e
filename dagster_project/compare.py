"""`lorascope compare a b`: gather what the store has of several experiments and lay it side by side."""

import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from pydantic import JsonValue

from assets.paper.artifact import TABLES
from assets.paper.comparison import Comparison, Side, compare
from assets.paper.config import PAPER_REPORT
from assets.paper.frontier import frontier_chart
from dagster_project.experiment import Experiment, Experiments
from dagster_project.plan import keys
from resources.charts import FOLDER, save_chart
from resources.errors import BadInput
from resources.home import Home
from resources.store import Store

MOST = 20
"""Experiments side by side before a table stops being readable."""
READ = ("batchtopk_sae", "interpretations")
"""Artifacts that a comparison opens; of the others it reads the manifest."""


def compare_experiments(home: Home, names: Sequence[str]) -> Comparison:
    """Compare at least two experiments by name.

    Raises:
        BadInput: for fewer than 2 or more than 20, or when one is invalid or has nothing computed.
    """
    if not 2 <= len(set(names)) <= MOST:
        raise BadInput(f"compare takes 2 to {MOST} different experiments (given: {', '.join(names) or 'none'})")
    folder, store = Experiments(home.experiments), Store(home.store)
    return compare([_side(folder, folder.load(name), store) for name in dict.fromkeys(names)])


def computed_experiments(home: Home) -> list[str]:
    """Valid experiments that have at least one artifact of their own."""
    folder, store = Experiments(home.experiments), Store(home.store)
    return [name for name in folder.names() if _is_computed(folder, store, name)]


def _is_computed(folder: Experiments, store: Store, name: str) -> bool:
    try:
        return any(store.peek(asset, key) for asset, key in _own_keys(folder, folder.load(name)).items())
    except BadInput:
        return False


def _own_keys(folder: Experiments, experiment: Experiment) -> dict[str, str]:
    """Keys of what the parent has not: of all, where nothing differs."""
    found = keys(experiment)
    inherited = keys(folder.load(experiment.parent)) if experiment.parent else {}
    return {asset: key for asset, key in found.items() if inherited.get(asset) != key} or found


def _side(folder: Experiments, experiment: Experiment, store: Store) -> Side:
    found = {asset: store.peek(asset, key) for asset, key in keys(experiment).items()}
    manifests = {asset: manifest for asset, manifest in found.items() if manifest is not None}
    if not _is_computed(folder, store, experiment.name):
        raise BadInput(f"nothing of '{experiment.name}' is computed yet: run `lorascope run {experiment.name}` first")
    sections = {name: experiment.values(name) for name in experiment.sections}
    whole = [manifests[asset] for asset in READ if asset in manifests and store.whole(asset, manifests[asset].key)]
    return Side(
        experiment.name, sections, manifests, {found.asset: store.folder(found.asset, found.key) for found in whole}
    )


def write_comparison(home: Home, names: Sequence[str], found: Comparison) -> Path:
    """Write the page that shows a comparison, with each experiment's claims; returns its path."""
    from assets.paper.page import claims_side_by_side, render_comparison
    from assets.paper.tables import write_tables

    folder, store = Experiments(home.experiments), Store(home.store)
    claims: dict[str, list[dict[str, JsonValue]]] = {}
    reports: dict[str, str] = {}
    for name in names:
        manifest = store.peek(PAPER_REPORT.asset, keys(folder.load(name))[PAPER_REPORT.asset])
        if manifest is not None:
            claims[name] = manifest.rows("claims")
            reports[name] = f"../store/{manifest.asset}/{manifest.key}/index.html"
    page = home.comparison / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_comparison(names, found, claims, reports))
    for name in (FOLDER, TABLES):
        shutil.rmtree(page.parent / name, ignore_errors=True)
    rows = {field.name: getattr(found, field.name) for field in fields(found)}
    write_tables({**rows, "claims": claims_side_by_side(names, claims)}, page.parent / TABLES)
    if found.frontier:
        save_chart(frontier_chart(found.frontier), page.parent, "frontier")
    return page

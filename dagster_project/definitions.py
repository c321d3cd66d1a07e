"""The building: every room's assets, left to right, with the resources and sensors around them.

Opened by `dagster dev -w workspace.yaml` and by `dg dev`.
"""

import importlib
from collections.abc import Iterable

import dagster as dg

from assets.sections import SECTIONS
from dagster_project.console import terminal_logger
from dagster_project.jobs import gc, verify, whole_paper
from dagster_project.materialize import EXPERIMENTS, claims_of_the_run, params_key
from dagster_project.rooms import ROOMS
from resources.home import find_home
from resources.launcher.deployment import load_deployment
from sensors import adapter_landed, experiments, killed_runs, run_failed

_MODULES = [importlib.import_module(f"assets.{room}.asset") for room in ROOMS]


def _params() -> Iterable[dg.AssetSpec]:
    """One external asset per section, so that an edited YAML file shows in the lineage."""
    for section, config in SECTIONS.items():
        yield dg.AssetSpec(
            params_key(section),
            group_name="params",
            partitions_def=EXPERIMENTS,
            description=f"{config.__doc__} Read from the experiments' YAML files.",
            kinds={"yaml"},
        )


defs = dg.Definitions(
    assets=[*_params(), *(asset for module in _MODULES for asset in module.ASSETS)],
    jobs=[whole_paper, gc, verify],
    sensors=[experiments.experiments, run_failed.run_failed, adapter_landed.adapter_landed, killed_runs.killed_runs],
    resources={"home": find_home(), "h200_node": load_deployment(), "claims": claims_of_the_run},
    executor=dg.in_process_executor,
    loggers={"console": terminal_logger},
)

"""The paper room's asset in Dagster."""

from assets.paper.config import PAPER_REPORT
from dagster_project.materialize import experiment_asset

paper_report = experiment_asset(
    PAPER_REPORT,
    description="The paper's tables, figures and claims from our artifacts, each beside the published number.",
    kinds={"html", "vegalite"},
)

ASSETS = [paper_report]
CHECKS = []

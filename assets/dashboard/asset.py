"""The dashboard room's asset in Dagster."""

from assets.dashboard.config import FEATURE_DASHBOARD
from dagster_project.materialize import experiment_asset

feature_dashboard = experiment_asset(
    FEATURE_DASHBOARD,
    description="A static site: every unit's explanation, class, score, contexts and full rollouts.",
    kinds={"html", "javascript"},
)

ASSETS = [feature_dashboard]

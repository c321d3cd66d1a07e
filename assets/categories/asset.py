"""The Dagster assets of this room."""

from assets.categories.config import CATEGORY_DENSITIES, FEATURE_CATEGORIES
from dagster_project.materialize import experiment_asset

feature_categories = experiment_asset(
    FEATURE_CATEGORIES,
    description="The category and subcategory of every explained unit (paper B.2), with the taxonomy itself.",
    kinds={"anthropic", "parquet"},
)
category_densities = experiment_asset(
    CATEGORY_DENSITIES,
    description="Share of activation per category (figure 2); class shares with intervals and chi² (figure 1).",
    kinds={"altair", "parquet"},
)

ASSETS = [feature_categories, category_densities]

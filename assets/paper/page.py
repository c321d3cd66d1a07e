"""The report as one HTML page that needs nothing but itself: the charts' code and data are inside."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resources.manifest import Manifest

SITE = Path(__file__).parent / "site"
ORDER = (
    ("Figure 1: how interpretable directions are beside neurons", "category_densities", "figure_1"),
    ("Figure 2: what activates", "category_densities", "figure_2"),
    ("Figure 3: what the components do", "ablation_kl", ""),
    ("Steering", "steering_effects", ""),
    ("The sparse autoencoder", "batchtopk_sae", ""),
    ("Training", "lora_checkpoint", ""),
    ("Training the full finetune", "full_finetune_checkpoint", ""),
)
"""Section title, asset, beginning of the chart's name."""


@dataclass(frozen=True)
class Figure:
    """A chart of an artifact."""

    asset: str
    name: str
    specification: str
    """Vega-Lite JSON."""


def render(
    model: str,
    claims: Sequence[Mapping[str, Any]],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    figures: Sequence[Figure],
    examples: Sequence[Mapping[str, Any]],
    manifests: Mapping[str, Manifest],
    comparable: bool,
) -> str:
    """The page's HTML."""
    environment = Environment(loader=FileSystemLoader(SITE), autoescape=True, undefined=StrictUndefined)
    environment.filters["number"] = _number
    sections = [
        (title, [figure for figure in figures if figure.asset == asset and figure.name.startswith(begins)])
        for title, asset, begins in ORDER
    ]
    return environment.get_template("report.html.jinja").render(
        model=model,
        claims=claims,
        tables=tables,
        sections=[(title, found) for title, found in sections if found],
        examples=examples,
        manifests=manifests,
        comparable=comparable,
        sae=_scalars(manifests["batchtopk_sae"]),
        specifications=_embedded(
            {f"{figure.asset}-{figure.name}": json.loads(figure.specification) for figure in figures}
        ),
        bundle=_vega(),
        style=(SITE / "report.css").read_text(),
    )


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `vegaEmbed`."""
    import vl_convert

    # The stub demands a snippet; without one the bundle exports its three libraries, which is what we want.
    return vl_convert.javascript_bundle(None).replace("</script", "<\\/script")  # pyright: ignore[reportArgumentType]


def _embedded(value: object) -> str:
    """JSON inside a script element: `<` could end the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _scalars(manifest: Manifest) -> dict[str, object]:
    return {name: value for name, value in manifest.metrics.items() if isinstance(value, int | float | str)}


def _number(value: object, percent: bool = False) -> str:
    """As a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if percent:
        return f"{100 * value:.4g} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

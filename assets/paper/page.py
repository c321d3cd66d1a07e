"""The report as one HTML page that needs nothing but itself: the charts' code and data are inside."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from assets.paper.beside import published, twins, value_and_interval
from assets.paper.claims import CLAIMS, spoken
from assets.paper.comparison import Comparison
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
_HIDDEN = re.compile("[\u0000-\u0008\u000b-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


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
    """The report's HTML."""
    sections = [
        (title, [figure for figure in figures if figure.asset == asset and figure.name.startswith(begins)])
        for title, asset, begins in ORDER
    ]
    specifications = {f"{figure.asset}-{figure.name}": json.loads(figure.specification) for figure in figures}
    return _page(
        "report.html.jinja",
        {
            "model": model,
            "claims": claims,
            "counts": Counter(claim["verdict"] for claim in claims),
            "tables": tables,
            "sections": [(title, found) for title, found in sections if found],
            "examples": examples,
            "manifests": manifests,
            "comparable": comparable,
            "sae": dict(_scalars(manifests["batchtopk_sae"].metrics)),
            "dashboard": f"../../feature_dashboard/{manifests['feature_dashboard'].key}/index.html",
            "specifications": _embedded(specifications),
            "bundle": _vega(),
        },
    )


def render_comparison(
    names: Sequence[str],
    found: Comparison,
    claims: Mapping[str, Sequence[Mapping[str, Any]]],
    reports: Mapping[str, str],
) -> str:
    """Experiments side by side; `claims`: experiment -> rows of its report; `reports`: experiment -> address."""
    by_id = {name: {row["id"]: row for row in rows} for name, rows in claims.items()}
    rows = [
        {
            "statement": claim.statement,
            "expected": claim.expected,
            "percent": claim.percent,
            "sides": [by_id.get(name, {}).get(claim.id) for name in names],
        }
        for claim in CLAIMS
    ]
    return _page("comparison.html.jinja", {"names": names, "claims": rows, "reports": reports, **asdict(found)})


def render_front(experiments: Sequence[object], comparison: str | None) -> str:
    """The list of experiments (name, description, pages) that `lorascope serve` opens with."""
    return _page("front.html.jinja", {"experiments": experiments, "comparison": comparison})


def _page(template: str, values: Mapping[str, Any]) -> str:
    environment = Environment(loader=FileSystemLoader(SITE), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"number": _number, "slug": lambda text: text.replace(" ", "-"), "visible": _visible}
    environment.filters["interval"] = value_and_interval
    environment.globals |= {
        "filled": _filled,
        "twins": twins,
        "published": published,
        "style": (SITE / "report.css").read_text(),
    }
    return environment.get_template(template).render(**values)


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `vegaEmbed`."""
    import vl_convert

    # The stub demands a snippet; without one the bundle exports its three libraries, which is what we want.
    return vl_convert.javascript_bundle(None).replace("</script", "<\\/script")  # pyright: ignore[reportArgumentType]


def _embedded(value: object) -> str:
    """JSON inside a script element: `<` could end the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _scalars(metrics: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, object]]:
    """Numbers and words of nested metrics, as `held out/fvu`; tables have their own place."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{under}{name}/")
        elif isinstance(value, int | float | str):
            yield under + name, value


def _filled(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns in which any row says something."""
    return [name for name in rows[0] if any(row.get(name) is not None for row in rows)]


def _visible(text: str) -> str:
    """Control characters and bidi marks as escapes: they would hide or reorder text."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _number(value: object, percent: bool = False) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, bool) or not isinstance(value, int | float) else spoken(value, percent)

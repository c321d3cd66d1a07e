"""The report as one HTML page that needs nothing but itself: the charts' code and data are inside."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from assets.interpretations.artifact import CLASSES
from assets.interpretations.config import STATISTICAL
from assets.paper.beside import asked, column_title, crossed, labelled, published, twins, value_and_interval
from assets.paper.captions import Figure, arranged
from assets.paper.claims import CLAIMS, Verdict, spoken
from assets.paper.comparison import Comparison
from resources.manifest import Manifest
from resources.ports import HOST, UI_PORT

SITE = Path(__file__).parent / "site"
_HIDDEN = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
TENTH = 0.1
"""From here on a share is told to a tenth of a percent, below to three digits."""
WHOLE = 999.5
"""From here on three digits are a whole number."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


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
    verdicts = Counter(claim["verdict"] for claim in claims)
    specifications = {f"{figure.asset}-{figure.name}": json.loads(figure.specification) for figure in figures}
    return _page(
        "report.html.jinja",
        {
            "model": model,
            "claims": claims,
            "by_id": {claim["id"]: claim for claim in claims},
            "counts": {verdict: verdicts[verdict] for verdict in VERDICTS if verdicts[verdict]},
            "tables": tables,
            "sections": list(arranged(figures)),
            "examples": examples,
            "manifests": manifests,
            "comparable": comparable,
            "dagster": f"http://{HOST}:{UI_PORT}/assets",
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
    left_out: Sequence[str] = (),
) -> str:
    """Experiments side by side; `claims`: experiment -> rows of its report; `reports`: experiment -> address."""
    by_id = _by_id(claims)
    rows = [
        {"claim": claim, "sides": [by_id.get(name, {}).get(claim.id) for name in names]}
        for claim in CLAIMS
        if any(claim.id in found for found in by_id.values())
    ]
    values = {"names": names, "claims": rows, "reports": reports, "found": found, "left_out": left_out}
    return _page("comparison.html.jinja", values)


def claims_side_by_side(
    names: Sequence[str], claims: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """The claims as rows of a file: what the paper has, then measured value and verdict of each experiment."""
    by_id = _by_id(claims)
    rows: list[dict[str, Any]] = []
    for claim in CLAIMS:
        row: dict[str, Any] = {"id": claim.id, "statement": claim.statement, "paper": claim.expected}
        for name in names:
            side = by_id.get(name, {}).get(claim.id, {})
            row |= {name: side.get("measured"), f"{name} verdict": side.get("verdict")}
        rows.append(row)
    return rows


def _by_id(claims: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    return {name: {row["id"]: row for row in rows} for name, rows in claims.items()}


def render_front(experiments: Sequence[object], comparison: str | None) -> str:
    """The list of experiments (name, description, pages) that `lorascope serve` opens with."""
    return _page("front.html.jinja", {"experiments": experiments, "comparison": comparison})


def _page(template: str, values: Mapping[str, Any]) -> str:
    environment = Environment(loader=FileSystemLoader(SITE), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "number": _number,
        "measured": _measured,
        "slug": lambda text: text.replace(" ", "-"),
        "visible": _visible,
        "agreed": _agreed,
        "exact": lambda rows: [{n: None if v is None else str(v) for n, v in row.items()} for row in rows],
        "line": lambda text: text.replace("\n", "↵"),
        "interval": value_and_interval,
        "asked": asked,
        "crossed": crossed,
        "labelled": labelled,
        "column_title": column_title,
    }
    environment.globals |= {
        "filled": _filled,
        "numeric": _numeric,
        "same": _same,
        "twins": twins,
        "published": published,
        "classes": CLASSES,
        "style": (SITE / "report.css").read_text(encoding="utf-8"),
    }
    return environment.get_template(template).render(**values)


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `vegaEmbed`, with the licences that it lacks."""
    import vl_convert

    licences = (SITE / "vega-licences.txt").read_text(encoding="utf-8")
    # The stub demands a snippet; without one the bundle exports its three libraries, which is what we want.
    bundle = vl_convert.javascript_bundle(None)  # pyright: ignore[reportArgumentType]
    return f"/*\n{licences}*/\n" + bundle.replace("</script", "<\\/script")


def _embedded(value: object) -> str:
    """JSON inside a script element: `<` could end the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _filled(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns in which any row says something."""
    return [name for name in rows[0] if any(row.get(name) is not None for row in rows)]


def _numeric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(isinstance(row.get(name), int | float) for row in rows)


def _same(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether a row says the same in all of several columns."""
    return len(names) > 1 and len({row.get(name) for name in names}) == 1


def _agreed(example: Mapping[str, Any]) -> str:
    """What the stability of an explanation says: of an LLM's answers, or of the two halves a predicate is fitted on."""
    stability = example["stability"]
    if example["explainer"] == STATISTICAL:
        return f"the same rule from {('neither half', 'one half', 'both halves')[round(2 * stability)]} of the contexts"
    return f"{spoken(stability, percent=True)} of further answers agree"


def _visible(text: str) -> str:
    """Control characters and bidi marks as escapes: they would hide or reorder text."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _number(value: object) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, bool) or not isinstance(value, int | float) else spoken(value)


def _measured(value: float | None, percent: bool = False) -> str:
    """A measurement with as many digits as mean something."""
    if value is None:
        return "–"
    if percent:
        return (f"{100 * value:.1f}" if abs(value) >= TENTH else f"{100 * value:.3g}") + "\u00a0%"
    whole = float(value).is_integer() or abs(value) >= WHOLE
    return f"{value:,.0f}" if whole else f"{value:#.3g}".rstrip(".")

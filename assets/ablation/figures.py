"""Figure 3 of the paper (a: layers, b: layer x projection), projection means, interactions, and the dose curves."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from resources.charts import ACCENT, CATEGORIES, SIGNED, save_chart
from resources.components import PROJECTIONS

if TYPE_CHECKING:
    import altair

KL = "KL to the full adapter (nats per token)"


def save_ablation_figures(rows: Sequence[dict], interactions: Sequence[dict], out: Path) -> None:
    """Draw what the table holds; a figure without rows is left out."""
    charts = {
        "figure_3a_layers": layer_bars(_of(rows, "layer")),
        "figure_3b_components": component_heatmap(_of(rows, "component")),
        "projection_means": projection_bars(_of(rows, "component")),
        "interactions": interaction_bars(interactions) if interactions else None,
        "cumulative": cumulative_curve(_of(rows, "greedy")) if _of(rows, "greedy") else None,
    }
    for name, chart in charts.items():
        if chart is not None:
            save_chart(chart, out, name)


def layer_bars(rows: Sequence[dict]) -> "altair.TopLevelMixin":
    """Figure 3a: KL of each layer, with one standard error."""
    import altair

    values = [
        {
            "layer": row["layer"],
            "kl": row["kl_mean"],
            "low": row["kl_mean"] - (row["kl_sem"] or 0),
            "high": row["kl_mean"] + (row["kl_sem"] or 0),
            "ce": row["ce_delta"],
        }
        for row in rows
    ]
    base = altair.Chart(altair.Data(values=values), title="Ablating one layer's adapter", width=620, height=240).encode(
        altair.X("layer:O", title="layer"),
        tooltip=["layer:O", altair.Tooltip("kl:Q", format=".3g"), altair.Tooltip("ce:Q", format=".3g")],
    )
    bars = base.mark_bar(color=ACCENT).encode(altair.Y("kl:Q", title=KL))
    return bars + base.mark_rule(color="#333").encode(altair.Y("low:Q"), altair.Y2("high:Q"))


def component_heatmap(rows: Sequence[dict]) -> "altair.Chart":
    """Figure 3b: KL of each component, layer by projection."""
    import altair

    values = [{"layer": row["layer"], "projection": row["projection"], "kl": row["kl_mean"]} for row in rows]
    return (
        altair.Chart(altair.Data(values=values), title="Ablating one component", width=620, height=170)
        .mark_rect()
        .encode(
            altair.X("layer:O", title="layer"),
            altair.Y("projection:N", title=None, sort=list(PROJECTIONS)),
            altair.Color("kl:Q", title="KL", scale=altair.Scale(scheme="viridis")),
            tooltip=["layer:O", "projection:N", altair.Tooltip("kl:Q", format=".3g")],
        )
    )


def projection_bars(rows: Sequence[dict]) -> "altair.Chart":
    """Mean over layers of the single components' KL, per projection."""
    import altair

    found = {p: [row["kl_mean"] for row in rows if row["projection"] == p] for p in PROJECTIONS}
    values = [{"projection": p, "kl": fmean(kls)} for p, kls in found.items() if kls]
    return (
        altair.Chart(altair.Data(values=values), title="Mean over layers of single ablations", width=320, height=220)
        .mark_bar(color=ACCENT)
        .encode(
            altair.X("projection:N", title=None, sort=list(PROJECTIONS)),
            altair.Y("kl:Q", title=KL),
            tooltip=["projection:N", altair.Tooltip("kl:Q", format=".3g")],
        )
    )


def interaction_bars(rows: Sequence[dict]) -> "altair.Chart":
    """KL of a group minus the sum over its parts ablated alone: above 0 the parts stand in for each other."""
    import altair

    values = [dict(row) for row in rows if row["unit_kind"] != "layer"]
    return (
        altair.Chart(altair.Data(values=values), title="Together against the sum of the parts", width=460)
        .mark_bar()
        .encode(
            altair.X("interaction:Q", title="interaction (nats per token)"),
            altair.Y("unit:N", title=None, sort=None),
            altair.Color("interaction:Q", title=None, legend=None, scale=altair.Scale(range=list(SIGNED), domainMid=0)),
            tooltip=["unit:N", *[altair.Tooltip(f"{c}:Q", format=".3g") for c in ("kl_mean", "kl_sum_of_parts")]],
        )
    )


def cumulative_curve(rows: Sequence[dict]) -> "altair.Chart":
    """KL along the greedy order."""
    import altair

    values = [{"step": row["step"], "added": row["unit"], "kl": row["kl_mean"]} for row in rows]
    return (
        altair.Chart(altair.Data(values=values), title="Cumulative ablation, worst first", width=520, height=240)
        .mark_line(color=ACCENT, point=True)
        .encode(altair.X("step:Q"), altair.Y("kl:Q", title=KL), tooltip=["step:Q", "added:N", "kl:Q"])
    )


DOSE_MEASURES = (
    ("kl_mean", None, KL),
    ("backtracking", "backtracking", "backtracking words per 100 tokens"),
    ("length", "length", "new tokens"),
    ("accuracy", "accuracy", "problems solved"),
)


def save_dose_figures(rows: Sequence[dict], out: Path) -> None:
    """One chart per steered unit: each measure against the dose, unit against its random control."""
    for number, unit in enumerate(dict.fromkeys(row["unit"] for row in rows)):
        mine = [row for row in rows if row["unit"] == unit]
        save_chart(dose_chart(unit, mine), out, f"dose_{number}")


def dose_chart(unit: str, rows: Sequence[dict]) -> "altair.VConcatChart":
    """Measures that were taken, one above the other."""
    import altair

    panels = []
    for column, interval, title in DOSE_MEASURES:
        values = [_dose(row, column, interval) for row in rows if row[column] is not None]
        if values:
            panels.append(_dose_panel(values, title))
    return altair.vconcat(*panels, title=unit)


def _dose(row: dict, column: str, interval: str | None) -> dict[str, object]:
    line = row["direction"] if interval is None else f"{row['direction']}, {row['decoding']}"
    value = row[column]
    low, high = (row[f"{interval}_low"], row[f"{interval}_high"]) if interval else (value, value)
    return {"factor": row["factor"], "value": value, "low": low, "high": high, "line": line}


def _dose_panel(values: list[dict[str, object]], title: str) -> "altair.LayerChart | altair.FacetChart":
    import altair

    base = altair.Chart(altair.Data(values=values), width=460, height=150).encode(
        altair.X("factor:Q", title="factor x 99th percentile", scale=altair.Scale(type="symlog")),
        altair.Color("line:N", title=None, scale=altair.Scale(range=list(CATEGORIES))),
    )
    lines = base.mark_line(point=True).encode(
        altair.Y("value:Q", title=title), tooltip=["line:N", "factor:Q", altair.Tooltip("value:Q", format=".3g")]
    )
    return lines + base.mark_area(opacity=0.15).encode(altair.Y("low:Q"), altair.Y2("high:Q"))


def _of(rows: Sequence[dict], kind: str) -> list[dict]:
    return [row for row in rows if row["unit_kind"] == kind]

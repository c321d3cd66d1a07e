"""Figure 3 of the paper (a: layers, b: layer x projection), projection means, interactions, and the dose curves."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from resources.charts import ACCENT, SIGNED, save_chart
from resources.components import PROJECTIONS
from resources.intervals import t95

if TYPE_CHECKING:
    import altair

DIRECTIONS = ("unit", "random")
CONTRAST = "#d95f02"
"""Stands out against the accent for colour-blind readers too (ColorBrewer Dark2)."""
_SHOWN = ("value", "low", "high")
KL = "KL to the full adapter (nats per token)"


def save_ablation_figures(rows: Sequence[dict], interactions: Sequence[dict], out: Path) -> None:
    """Draw what the table holds; a figure without rows is left out."""
    groups = [dict(row) for row in interactions if row["unit_kind"] != "layer"]
    charts = (
        ("figure_3a_layers", layer_bars, _of(rows, "layer")),
        ("figure_3b_components", component_heatmap, _of(rows, "component")),
        ("projection_means", projection_bars, _of(rows, "component")),
        ("interactions", interaction_bars, groups),
        ("cumulative", cumulative_curve, _of(rows, "greedy")),
    )
    for name, draw, shown in charts:
        if shown:
            save_chart(draw(shown), out, name)


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
    """KL of a group minus the sum over its components ablated alone."""
    import altair

    return (
        altair.Chart(altair.Data(values=list(rows)), title="Together against the sum of the parts", width=460)
        .mark_bar(stroke="#888", strokeWidth=0.5)
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
        .encode(altair.X("step:O"), altair.Y("kl:Q", title=KL), tooltip=["step:Q", "added:N", "kl:Q"])
    )


DOSE_MEASURES = (
    ("kl_mean", None, KL),
    ("backtracking", "backtracking", "backtracking words per 100 tokens"),
    ("length", "length", "new tokens"),
    ("accuracy", "accuracy", "problems solved"),
)


DOSES = {"add": "dose, x 99th percentile", "scale": "factor on the activation"}
"""What the axis shows, by `steering.mode`."""


def save_dose_figures(rows: Sequence[dict], mode: str, out: Path) -> None:
    """One chart per steered unit: each measure against the dose, unit against its random control."""
    for unit in dict.fromkeys(row["unit"] for row in rows):
        mine = [row for row in rows if row["unit"] == unit]
        save_chart(dose_chart(unit, mine, DOSES[mode]), out, f"dose_{slug(unit)}")


def slug(unit: str) -> str:
    """`adapter:L3.down_proj:+` as part of a file name: adapter_L3_down_proj_positive."""
    return re.sub(r"\W+", "_", unit.replace(":+", ":positive").replace(":-", ":negative"))


def dose_chart(unit: str, rows: Sequence[dict], axis: str) -> "altair.VConcatChart":
    """A row per measure, a column per decoding; the unit and its random control are told apart by colour and dash."""
    import altair

    panels = [altair.hconcat(*_dose_panels(rows, axis, *measure)) for measure in DOSE_MEASURES]
    return altair.vconcat(*[panel for panel in panels if panel.hconcat], title=unit)


def _dose_panels(
    rows: Sequence[dict], axis: str, column: str, interval: str | None, title: str
) -> Sequence["altair.LayerChart | altair.FacetChart"]:
    """One panel per decoding of a measure of continuations, one panel in all for the KL, which has none."""
    found = [row for row in rows if row[column] is not None]
    top = max((_dose(row, column, interval)["high"] for row in found), default=0.0)
    if interval is None:
        return [_dose_panel(found, axis, column, None, title, top)] if found else []
    by_decoding = {name: [row for row in found if row["decoding"] == name] for name in ("greedy", "sampled")}
    return [
        _dose_panel(mine, axis, column, interval, f"{title}, {name}", top) for name, mine in by_decoding.items() if mine
    ]


def _dose(row: dict, column: str, interval: str | None) -> dict[str, float]:
    """A curve point; rows repeat the KL per decoding, and a repeated point draws as one."""
    spread = t95(row["n_rollouts"]) * row["kl_sem"] if row["kl_sem"] else 0.0
    low, high = row[column] - spread, row[column] + spread
    if interval is not None:
        low, high = row[f"{interval}_low"], row[f"{interval}_high"]
    point = {"factor": row["factor"], "value": row[column]}
    return point | {"low": row[column] if low is None else max(0.0, low), "high": row[column] if high is None else high}


def _dose_panel(
    rows: Sequence[dict], axis: str, column: str, interval: str | None, title: str, top: float
) -> "altair.LayerChart | altair.FacetChart":
    import altair

    values = [_dose(row, column, interval) | {"direction": row["direction"]} for row in rows]
    base = altair.Chart(altair.Data(values=values), width=300, height=150, title=title).encode(
        _dose_axis(sorted({row["factor"] for row in rows}), axis),
        altair.Color("direction:N", title=None, scale=altair.Scale(domain=DIRECTIONS, range=(ACCENT, CONTRAST))),
        tooltip=["direction:N", "factor:Q", *[altair.Tooltip(f"{name}:Q", format=".3g") for name in _SHOWN]],
    )
    dash = altair.StrokeDash("direction:N", title=None, scale=altair.Scale(domain=DIRECTIONS, range=[[1, 0], [4, 3]]))
    lines = base.mark_line(point=True).encode(_measure_axis(interval, top), dash)
    return lines + base.mark_area(opacity=0.15).encode(altair.Y("low:Q"), altair.Y2("high:Q"))


def _dose_axis(factors: Sequence[float], title: str) -> "altair.X":
    import altair

    scale = altair.Scale(type="symlog")
    return altair.X("factor:Q", title=title, scale=scale, axis=altair.Axis(values=list(factors)))


def _measure_axis(interval: str | None, top: float) -> "altair.Y":
    import altair

    if interval is not None:
        return altair.Y("value:Q", title=None, scale=altair.Scale(domain=[0, top]))
    # A KL of 0.01 nats at one dose and 10 at the next: only a logarithm shows both.
    axis = altair.Axis(values=[0, 0.01, 0.1, 1, 10], labelExpr="datum.value", labelOverlap=False)
    return altair.Y("value:Q", title=None, scale=altair.Scale(type="symlog", constant=0.01), axis=axis)


def _of(rows: Sequence[dict], kind: str) -> list[dict]:
    return [row for row in rows if row["unit_kind"] == kind]

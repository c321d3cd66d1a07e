"""The figures beside the numbers: training, how often latents fire, what is explained where."""

from pathlib import Path

import altair as alt
import numpy as np

from assets.sae.evaluate import Held
from resources.charts import ACCENT, line_chart, save_chart
from resources.components import PROJECTIONS, parse_component

RAREST = -6
"""log10 of the density at which the histogram ends; rarer latents share its first bar."""
BINS = 30


def draw(out: Path, curve: list[dict[str, float]], held: Held, columns: tuple[str, ...]) -> None:
    """Write loss, l0, density and explained variance into `out/charts`."""
    save_chart(line_chart(curve, "fvu", "Training loss (fraction of variance unexplained)"), out, "loss")
    save_chart(_l0(held.l0_counts), out, "l0")
    save_chart(_density(held.latents["density"].to_numpy()), out, "density")
    save_chart(_explained(columns, held.explained_E), out, "explained_variance")


def _l0(counts: np.ndarray) -> alt.Chart:
    rows = [{"active latents": i, "share of tokens": float(n / counts.sum())} for i, n in enumerate(counts)]
    whole = alt.Scale(domain=[-0.5, len(rows) - 0.5], nice=False)
    return (
        alt.Chart(alt.Data(values=rows), title="Latents that fire per held-out token", width=520, height=200)
        .mark_bar(color=ACCENT)
        .encode(
            alt.X("active latents", type="quantitative", scale=whole, axis=alt.Axis(tickMinStep=1)),
            alt.Y("share of tokens", type="quantitative"),
        )
    )


def _density(density_F: np.ndarray) -> alt.Chart:
    logs = np.log10(np.maximum(density_F, 10.0**RAREST))
    counts, edges = np.histogram(logs, bins=BINS, range=(RAREST, 0))
    rows = [{"low": float(edges[i]), "high": float(edges[i + 1]), "latents": int(n)} for i, n in enumerate(counts)]
    return (
        alt.Chart(alt.Data(values=rows), title="How often each latent fires", width=520, height=200)
        .mark_bar(color=ACCENT)
        .encode(
            alt.X("low", type="quantitative", bin="binned", title="log10 of the share of held-out tokens"),
            alt.X2("high"),
            alt.Y("latents", type="quantitative"),
        )
    )


def _explained(columns: tuple[str, ...], explained_E: np.ndarray) -> alt.Chart:
    rows = [
        {"layer": component.layer, "projection": component.projection, "explained": float(value)}
        for component, value in zip(map(parse_component, columns), explained_E, strict=True)
        if np.isfinite(value)
    ]
    return (
        alt.Chart(alt.Data(values=rows), title="Explained variance of each component", width=520, height=160)
        .mark_rect()
        .encode(
            alt.X("layer", type="ordinal"),
            alt.Y("projection", type="nominal", sort=list(PROJECTIONS)),
            alt.Color("explained", type="quantitative", scale=alt.Scale(domain=[0, 1], clamp=True, scheme="viridis")),
        )
    )

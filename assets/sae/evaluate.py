"""How good the dictionary is on rollouts that it never saw, used as it will be: by its fixed threshold.

Shapes: B tokens, D columns, E columns that entered training, F latents.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel

from assets.sae.artifact import COMPONENTS, COMPONENTS_FILE, LATENTS, LATENTS_FILE, Sae
from resources.components import parse_component

DENSE = 0.1
"""A latent that fires on more than this share of the tokens is called dense (SAEBench)."""
SIMILAR_ROWS = 1024
"""Decoder rows compared at once: 15 MB of cosines for 3584 latents."""


class Evaluation(BaseModel, frozen=True):
    """Held-out quality. FVU is the fraction of variance unexplained, over the components that entered."""

    tokens: int
    fvu: float
    explained_variance: float
    cosine: float
    """Mean cosine between a state and its reconstruction, both minus the training sample's mean state."""
    l0: float
    """Latents that fire per token, mean."""
    l0_p05: float
    l0_p50: float
    l0_p95: float
    silent_latents: int
    """Fired on none of these tokens."""
    dense_latents: int
    decoder_similarity: float
    """Mean over latents of the largest cosine with another decoder row."""


class Errors:
    """Sums from which the quality of a reconstruction follows, float64."""

    def __init__(self, center_E: torch.Tensor) -> None:
        """`center_E`: what states are taken relative to for the cosine."""
        self._center_E = center_E.double()
        self._sums_3E = torch.zeros(3, len(center_E), dtype=torch.float64, device=center_E.device)
        self._cosine = 0.0
        self.tokens = 0

    def add(self, state_BE: torch.Tensor, rebuilt_BE: torch.Tensor) -> None:
        """Count some tokens in."""
        state_BE, rebuilt_BE = state_BE.double() - self._center_E, rebuilt_BE.double() - self._center_E
        error_BE = state_BE - rebuilt_BE
        self._sums_3E += torch.stack([state_BE.sum(0), state_BE.square().sum(0), error_BE.square().sum(0)])
        self._cosine += float(torch.cosine_similarity(state_BE, rebuilt_BE, dim=1).sum())
        self.tokens += len(state_BE)

    @property
    def variance_E(self) -> torch.Tensor:
        """Summed squares around the mean of these tokens."""
        return self._sums_3E[1] - self._sums_3E[0].square() / max(self.tokens, 1)

    @property
    def error_E(self) -> torch.Tensor:
        """Summed squared errors."""
        return self._sums_3E[2]

    @property
    def fvu(self) -> float:
        """Over all columns together."""
        return float(self.error_E.sum() / self.variance_E.sum().clamp(min=1e-300))

    @property
    def cosine(self) -> float:
        """Mean over tokens."""
        return self._cosine / max(self.tokens, 1)


@dataclass(frozen=True)
class Held:
    """What the evaluation found."""

    summary: Evaluation
    latents: pa.Table
    explained_E: np.ndarray
    """Explained variance of each column that entered; NaN for one that never moves."""
    l0_counts: np.ndarray
    """Tokens by number of latents that fire."""


def evaluate(
    sae: Sae,
    states: Iterable[torch.Tensor],
    entering: torch.Tensor,
    dead_F: torch.Tensor,
    center_E: torch.Tensor,
) -> Held:
    """Encode and decode held-out states [B, D].

    `dead_F`: bool, latents that count as dead after training; `center_E`: what cosines are taken around.
    """
    device = sae.W_enc_DF.device
    errors = Errors(center_E)
    count_F = torch.zeros(sae.d_sae, dtype=torch.int64, device=device)
    total_F = torch.zeros(sae.d_sae, dtype=torch.float64, device=device)
    most_F = torch.zeros(sae.d_sae, device=device)
    l0_counts = torch.zeros(sae.d_sae + 1, dtype=torch.int64, device=device)
    for state_BD in states:
        latents = sae.encode(state_BD)
        errors.add(state_BD[:, entering], sae.decode(latents, len(state_BD))[:, entering])
        count_F += torch.bincount(latents.latent_N, minlength=sae.d_sae)
        total_F.index_add_(0, latents.latent_N, latents.value_N.double())
        most_F.scatter_reduce_(0, latents.latent_N, latents.value_N, "amax")
        per_token_B = torch.bincount(latents.row_N, minlength=len(state_BD))
        l0_counts += torch.bincount(per_token_B, minlength=sae.d_sae + 1)
    similarity_F = decoder_similarity(sae.W_dec_FD)
    density_F = count_F.double() / max(errors.tokens, 1)
    l0 = l0_counts.cpu().numpy()
    summary = Evaluation(
        tokens=errors.tokens,
        fvu=errors.fvu,
        explained_variance=1 - errors.fvu,
        cosine=errors.cosine,
        l0=float(count_F.sum()) / max(errors.tokens, 1),
        l0_p05=quantile_of_counts(l0, 0.05),
        l0_p50=quantile_of_counts(l0, 0.5),
        l0_p95=quantile_of_counts(l0, 0.95),
        silent_latents=int((count_F == 0).sum()),
        dense_latents=int((density_F > DENSE).sum()),
        decoder_similarity=float(similarity_F.mean()),
    )
    explained_E = torch.where(errors.variance_E > 0, 1 - errors.error_E / errors.variance_E, torch.nan)
    table = _latent_table(sae, density_F, total_F / count_F.clamp(min=1), most_F, similarity_F, dead_F)
    return Held(summary, table, explained_E.cpu().numpy(), np.trim_zeros(l0, "b"))


def decoder_similarity(W_dec_FD: torch.Tensor) -> torch.Tensor:
    """For every latent the largest cosine of its decoder row with another's: [F]."""
    unit_FD = torch.nn.functional.normalize(W_dec_FD, dim=1)
    best: list[torch.Tensor] = []
    for start in range(0, len(unit_FD), SIMILAR_ROWS):
        cosine = unit_FD[start : start + SIMILAR_ROWS] @ unit_FD.T
        rows = torch.arange(len(cosine), device=cosine.device)
        cosine[rows, rows + start] = -torch.inf
        best.append(cosine.amax(dim=1))
    return torch.cat(best)


def quantile_of_counts(counts: np.ndarray, share: float) -> float:
    """The smallest value that at least `share` of the tokens do not exceed; counts[v] tokens have value v."""
    return float(np.searchsorted(np.cumsum(counts), share * counts.sum()))


def _latent_table(
    sae: Sae,
    density_F: torch.Tensor,
    mean_F: torch.Tensor,
    most_F: torch.Tensor,
    similarity_F: torch.Tensor,
    dead_F: torch.Tensor,
) -> pa.Table:
    heaviest = sae.W_dec_FD.abs().argmax(dim=1).tolist()
    columns = {
        "latent": np.arange(sae.d_sae, dtype=np.int32),
        "density": density_F.cpu().numpy(),
        "mean": mean_F.float().cpu().numpy(),
        "max": most_F.cpu().numpy(),
        "threshold": sae.threshold_F.cpu().numpy(),
        "decoder_norm": sae.W_dec_FD.norm(dim=1).cpu().numpy(),
        "max_cosine": similarity_F.cpu().numpy(),
        "component": [sae.columns[i] for i in heaviest],
        "dead": dead_F.cpu().numpy(),
    }
    return pa.table(columns, schema=LATENTS)


def write_tables(folder: Path, held: Held, columns: tuple[str, ...]) -> None:
    """`latents.parquet` and `components.parquet` (component, explained_variance)."""
    pq.write_table(held.latents, folder / LATENTS_FILE)
    components = pa.table({"component": list(columns), "explained_variance": held.explained_E}, schema=COMPONENTS)
    pq.write_table(components, folder / COMPONENTS_FILE)


def by_projection(columns: tuple[str, ...], explained_E: np.ndarray) -> list[dict[str, str | float]]:
    """Mean, least and largest explained variance of the components of each projection."""
    rows: list[dict[str, str | float]] = []
    projections = [parse_component(column).projection for column in columns]
    for projection in dict.fromkeys(projections):
        values = explained_E[[name == projection for name in projections]]
        values = values[np.isfinite(values)]
        if len(values):
            summary = {"mean": values.mean(), "least": values.min(), "largest": values.max()}
            rows.append({"projection": projection} | {name: float(value) for name, value in summary.items()})
    return rows

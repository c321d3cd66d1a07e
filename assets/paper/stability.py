"""How many features of an SAE another seed finds again: for SAEs that differ in their seed alone.

Shapes: F live latents of the first SAE, G of the second, D components.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from assets.sae.artifact import LATENTS_FILE, WEIGHTS_FILE

FOUND = 0.9
"""Cosine from which on a latent counts as found again."""


def stability(saes: Sequence[tuple[str, Mapping[str, Any], Path]]) -> list[dict[str, Any]]:
    """One row for each two of (experiment, its `sae` section, folder of the SAE) with the same data and knobs.

    `mean_max_cosine`: mean over the live latents of both of the largest cosine with a live latent of the other;
    `found_again`: the share of them where that is at least 0.9.
    """
    rows: list[dict[str, Any]] = []
    for (first, knobs, one), (second, others, other) in combinations(saes, 2):
        if {**knobs, "seed": others["seed"]} == others:
            cosine = best_cosines(live_decoder(one), live_decoder(other))
            if not len(cosine):
                continue
            measured = {"mean_max_cosine": float(cosine.mean()), "found_again": float((cosine >= FOUND).mean())}
            rows.append({"first": first, "second": second, "latents": len(cosine), **measured})
    return rows


def live_decoder(folder: Path) -> np.ndarray:
    """Unit decoder rows [F, D] of the latents that are not dead."""
    from safetensors.numpy import load_file

    is_live_F = ~pq.read_table(folder / LATENTS_FILE, columns=["dead"])["dead"].to_numpy()
    decoder_FD = load_file(folder / WEIGHTS_FILE)["W_dec"][is_live_F]
    return decoder_FD / np.linalg.norm(decoder_FD, axis=1, keepdims=True)


def best_cosines(first_FD: np.ndarray, second_GD: np.ndarray) -> np.ndarray:
    """Of every unit row of the first, then of the second: the largest cosine with a row of the other, [F + G]."""
    if not len(first_FD) or not len(second_GD):
        return np.zeros(len(first_FD) + len(second_GD))  # nothing there is found again
    cosine_FG = first_FD @ second_GD.T
    return np.concatenate([cosine_FG.max(axis=1), cosine_FG.max(axis=0)])

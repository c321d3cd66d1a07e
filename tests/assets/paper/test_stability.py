"""Features of two seeds are matched by their decoder rows; dead latents and SAEs with other knobs do not count."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from assets.paper.stability import best_cosines, stability
from assets.sae.artifact import LATENTS_FILE, WEIGHTS_FILE


def sae(folder: Path, rows: list[list[float]], dead: list[bool]) -> Path:
    folder.mkdir()
    save_file({"W_dec": np.array(rows, dtype=np.float32)}, folder / WEIGHTS_FILE)
    pq.write_table(pa.table({"dead": dead}), folder / LATENTS_FILE)
    return folder


def test_latents_of_two_seeds_match_by_their_best_cosine_and_dead_ones_count_nothing(tmp_path: Path) -> None:
    first = sae(tmp_path / "a", [[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [False, False, True])
    second = sae(tmp_path / "b", [[3.0, 3.0], [5.0, 0.0], [0.0, -2.0]], [False, False, False])
    (row,) = stability([("a", {"k": 4, "seed": 1}, first), ("b", {"k": 4, "seed": 2}, second)])
    # a's (1, 0) has b's (1, 0), its (0, 1) only b's (1, 1) at 45 degrees; and back the same, b's (0, -1) at 90
    assert row == {
        "first": "a",
        "second": "b",
        "latents": 5,
        "mean_max_cosine": pytest.approx((1 + 0.5**0.5 + 0.5**0.5 + 1 + 0) / 5),
        "found_again": 0.4,
    }


def test_an_sae_without_live_latents_finds_nothing_again(tmp_path: Path) -> None:
    alive = sae(tmp_path / "a", [[1.0, 0.0], [0.0, 1.0]], [False, False])
    dead = sae(tmp_path / "b", [[1.0, 0.0]], [True])
    (row,) = stability([("a", {"k": 4, "seed": 1}, alive), ("b", {"k": 4, "seed": 2}, dead)])
    assert (row["latents"], row["mean_max_cosine"], row["found_again"]) == (2, 0.0, 0.0)
    assert stability([("a", {"k": 4, "seed": 1}, dead), ("b", {"k": 4, "seed": 2}, dead)]) == []


@pytest.mark.parametrize(("first", "second"), [(0, 3), (3, 0), (0, 0)])
def test_cosines_with_no_row_are_zero(first: int, second: int) -> None:
    assert best_cosines(np.ones((first, 4)), np.ones((second, 4))).tolist() == [0.0] * (first + second)


def test_saes_with_other_knobs_are_not_matched(tmp_path: Path) -> None:
    one, other = (sae(tmp_path / name, [[1.0, 0.0]], [False]) for name in "ab")
    assert stability([("a", {"k": 4, "seed": 1}, one), ("b", {"k": 8, "seed": 2}, other)]) == []

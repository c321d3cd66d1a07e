"""A unit's evidence is its own, whole wherever it lies in the file, and at most so much of one rollout."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets.interpretations.artifact import FAMILIES
from assets.interpretations.corpus import Corpus
from assets.interpretations.evidence import HELD_OUT, Evidence, _thinned, draw_parts, read_evidence
from assets.interpretations.predicates import phrase, surprise
from tests.assets.interpretations.conftest import STATISTICAL, Explained
from tests.assets.interpretations.world import CONTEXTS


def evidence_of(corpus: Corpus, folder: Path, rows: list[tuple], per_rollout: int = 4) -> dict[str, Evidence]:
    """`rows`: (unit, sample, rank, rollout, position, start, values)."""
    units = list(dict.fromkeys(row[0] for row in rows))
    pq.write_table(pa.table({"unit": units, "kind": ["latent"] * len(units)}), folder / "units.parquet")
    columns = ("unit", "sample", "rank", "rollout_id", "position", "start", "values")
    contexts = [
        {**dict(zip(columns, row, strict=True)), "value": row[6][row[4] - row[5]], "token_ids": []} for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(contexts, schema=CONTEXTS), folder / "contexts.parquet")
    knobs = STATISTICAL.model_copy(update={"contexts_per_rollout": per_rollout})
    return {found.unit: found for found in read_evidence(folder, corpus, knobs)}


def test_a_unit_that_lies_in_two_record_batches_is_read_once_with_its_own_values(
    explained: Explained, tmp_path: Path
) -> None:
    assert draw_parts(3, STATISTICAL.held_out_share, STATISTICAL.seed).tolist() == [0, 1, HELD_OUT]
    corpus = Corpus.open(explained.dataset)
    rows: list[tuple] = [("latent:0", "silent", i, 0, 0, 0, [0.0, 0.5]) for i in range(5000)]
    rows += [("latent:1", "silent", i, 1, 4, 3, [0.5, 0.0]) for i in range(5000)]  # 8192 rows are a batch
    rows += [("latent:2", "top", 0, 2, 6, 5, [0.0, 0.5])]
    found = evidence_of(corpus, tmp_path, rows)
    assert [(unit, len(one.windows)) for unit, one in found.items()] == [
        ("latent:0", 5000), ("latent:1", 5000), ("latent:2", 1),
    ]  # fmt: skip
    first = [corpus.first[rollout] for rollout in range(3)]
    assert [one.quiet_q.tolist() for one in found.values()] == [[first[0]], [first[1] + 4], [first[2] + 5]]
    assert [one.quiet_part_q.tolist() for one in found.values()] == [[0], [1], [HELD_OUT]]
    assert [{window.held_out for window in one.windows} for one in found.values()] == [{False}, {False}, {True}]
    assert found["latent:2"].peak_n.tolist() == [first[2] + 6]
    assert [one.windows[-1].values.tolist() for one in found.values()] == [[0.0, 0.5], [0.5, 0.0], [0.0, 0.5]]
    others = STATISTICAL.model_copy(update={"kinds": ("adapter", "neuron")})
    assert list(read_evidence(tmp_path, corpus, others)) == []


def test_the_strongest_contexts_of_a_rollout_are_kept_as_many_as_are_wanted_and_all_that_are_drawn(
    explained: Explained, tmp_path: Path
) -> None:
    # The quantile's context of rollout 0 comes first in the file, and last in strength. The fourth strongest is drawn.
    rows: list[tuple] = [("latent:0", "quantile", 0, 0, 9, 9, [0.25])]
    rows += [("latent:0", "top", 3 - at, 0, at, at, [1.0 + at]) for at in range(4)]
    rows += [("latent:0", "top", 4, 3, 7, 7, [0.5]), ("latent:0", "quantile", 1, 0, 0, 0, [1.0])]
    found = evidence_of(Corpus.open(explained.dataset), tmp_path, rows, per_rollout=3)["latent:0"]
    places = [(window.rollout_id, window.position) for window in found.windows]
    assert places == [(0, 3), (0, 2), (0, 1), (3, 7), (0, 9), (0, 0)]
    assert found.value_n.tolist() == [4.0, 3.0, 2.0, 0.5, 0.25, 1.0]
    assert found.typical_n.tolist() == [False] * 4 + [True] * 2


def test_quiet_tokens_beyond_a_limit_are_thinned_evenly_in_each_part() -> None:
    kept = _thinned(np.array([0] * 4001 + [1] * 4000 + [HELD_OUT]))
    assert kept.tolist() == [*range(0, 4001, 2), *range(4001, 8001), 8001]


def test_surprise_is_dunnings_g2_of_an_excess_and_nothing_else() -> None:
    # 8 of 10 where the background has 9 of 99, that is 9.5 of 100: 2 (8 ln(.8 / .095) + 2 ln(.2 / .905))
    expected = 2 * (8 * np.log(0.8 / 0.095) + 2 * np.log(0.2 / 0.905))
    found = surprise(np.array([8.0, 10.0, 0.95, 0.0, 12.0]), 10, np.array([9, 9, 9, 9, 9]), 99)
    all_of_them = 2 * 10 * np.log(1 / 0.095)
    np.testing.assert_allclose(found, [expected, all_of_them, 0, 0, all_of_them], atol=1e-9)


def test_a_place_is_told_as_a_tenth_of_the_rollout(explained: Explained) -> None:
    corpus = Corpus.open(explained.dataset)
    assert phrase(corpus, (FAMILIES.index("place"), 3)) == "30 to 40 % of the rollout"
    assert phrase(corpus, (FAMILIES.index("line start"), 1)) == "at a line's start"

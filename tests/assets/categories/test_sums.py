"""Activations summed over rollouts of the shards are those that the contexts sum: above the unit's threshold."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.categories.config import CategoriesConfig
from assets.categories.sums import subset_sums
from assets.contexts.artifact import UNITS_FILE, per_unit
from resources.errors import BadInput
from resources.shards import Shards
from tests.assets.contexts.conftest import LENGTHS, World
from tests.assets.interpretations.conftest import SILENT
from tests.shard_builders import build_shards

KNOBS = CategoriesConfig(provider="statistical", rollouts=2)
STATES = {
    1: np.array([[0.5, -3.0], [1.0, -0.25], [-2.0, 0.75]]),
    4: np.array([[2.0, -0.5], [0.25, -1.5]]),
}
THRESHOLDS = {"adapter:L0.q_proj:+": 0.5, "adapter:L0.q_proj:-": 0.5, "adapter:L1.up_proj:-": 1.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shards and thresholds of three directions."""
    build_shards(tmp_path, STATES, ("L0.q_proj", "L1.up_proj"))
    table = {"unit": list(THRESHOLDS), "threshold": pa.array(THRESHOLDS.values(), pa.float32())}
    pq.write_table(pa.table(table), tmp_path / UNITS_FILE)
    return tmp_path


def _sums(folder: Path, rollouts: int) -> dict[str, float]:
    knobs = KNOBS.model_copy(update={"rollouts": rollouts})
    return subset_sums(list(THRESHOLDS), knobs, folder, folder, folder, folder, SILENT)


def test_only_activations_above_the_units_threshold_are_summed(folder: Path) -> None:
    # 0.5 and 0.25 of L0.q_proj, and 0.25 and 0.5 of L1.up_proj's negative side, are not firing.
    assert _sums(folder, 2) == {"adapter:L0.q_proj:+": 3.0, "adapter:L0.q_proj:-": 2.0, "adapter:L1.up_proj:-": 4.5}


def test_a_rollout_that_is_not_drawn_adds_nothing(folder: Path) -> None:
    first = {"adapter:L0.q_proj:+": 1.0, "adapter:L0.q_proj:-": 2.0, "adapter:L1.up_proj:-": 3.0}
    second = {"adapter:L0.q_proj:+": 2.0, "adapter:L0.q_proj:-": 0.0, "adapter:L1.up_proj:-": 1.5}
    assert _sums(folder, 1) in (first, second)


def test_row_groups_without_a_drawn_rollout_stay_unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_shards(folder, STATES, ("L0.q_proj", "L1.up_proj"), row_group_rows=1)
    read: list[int] = []
    groups, whole = Shards.open(folder).groups, Shards.read_row_group
    monkeypatch.setattr(Shards, "read_row_group", lambda self, index: read.append(index) or whole(self, index))
    found = _sums(folder, 1)
    (drawn,) = {groups[index].first_rollout for index in read}
    assert len(read) == len(STATES[drawn])
    assert found["adapter:L0.q_proj:+"] == {1: 1.0, 4: 2.0}[drawn]


def test_more_rollouts_than_were_captured_are_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="3, but 2"):
        _sums(folder, 3)


def test_a_subset_of_all_rollouts_has_the_sums_of_no_subset(world: World, tmp_path: Path) -> None:
    found, _ = world.collect(tmp_path)
    knobs = KNOBS.model_copy(update={"rollouts": len(LENGTHS)})
    units, left = [unit.id for unit in found.units()], world.folder
    sums = subset_sums(units, knobs, found.path, left / "states", left / "neurons", left / "sae", SILENT)
    # Every activation is a small multiple of a power of two: no order of summing rounds.
    assert sums == per_unit(found.path, "sum")


def test_small_activations_beside_a_large_one_are_not_rounded_away(tmp_path: Path) -> None:
    """Between 32768 and 65536 float32 steps by 2^-8: a sum of that precision never leaves 60000."""
    build_shards(tmp_path, {1: np.array([[60000.0], *[[2**-10]] * 64])}, ("L0.q_proj",))
    pq.write_table(
        pa.table({"unit": ["adapter:L0.q_proj:+"], "threshold": pa.array([0], pa.float32())}), tmp_path / UNITS_FILE
    )
    knobs = KNOBS.model_copy(update={"rollouts": 1})
    sums = subset_sums(["adapter:L0.q_proj:+"], knobs, tmp_path, tmp_path, tmp_path, tmp_path, SILENT)
    assert sums == {"adapter:L0.q_proj:+": 60000 + 64 * 2**-10}

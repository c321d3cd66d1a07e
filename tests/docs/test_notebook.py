"""The blocks of the page on notebooks are executed in the order in which they stand, as a reader would."""

import re
import subprocess
import sys

import pytest

from resources.sources import PROJECT
from tests.docs.test_readme import here
from tests.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PAGE = (PROJECT / "docs" / "how-to" / "notebook.md").read_text()
CHECKS = """
print(type(mini.batchtopk_sae.W_dec_FD), type(mini.benchmark_scores.table()), mini.manifest("batchtopk_sae").metrics)
assert shards.columns[0] == "L0.q_proj"
assert repr(mini) == "open_experiment('mini')"
gate = shards.columns.index("L0.gate_proj")
state_T = np.concatenate([batch.state_BC[:, gate] for batch in shards.batches(4096)])
expected_T = np.sort(state_T)[::-1][:5].astype(float)
assert [row[2] for row in strongest.fetchall()] == expected_T.tolist()

singles = [row for row in kl.to_pylist() if row["unit_kind"] == "component"]
directions = [row for row in features.to_pylist() if row["kind"] == "adapter"]
assert len(directions) == 2 * len(singles)
for category, count, mean in by_category.fetchall():
    places = [(row["layer"], row["projection"]) for row in directions if row["category"] == category]
    of_each = [row["kl_mean"] for place in places for row in singles if (row["layer"], row["projection"]) == place]
    assert (count, round(mean, 9)) == (len(of_each), round(sum(of_each) / len(of_each), 9))

latent = int(context["unit"].split(":")[1])
mine = (fired.latent_N.numpy() == latent) & (tokens.position_B[fired.row_N.numpy()] == context["position"])
np.testing.assert_allclose(fired.value_N.numpy()[mine], [context["value"]], rtol=1e-5)
assert token and (before + token + after) in rollouts.text(context["rollout_id"])

states = torch.from_numpy(np.concatenate([shards.rollout(int(r)).state_BC for r in unseen])).float()
count_F = np.bincount(sae.encode(states).latent_N.numpy(), minlength=sae.d_sae)
np.testing.assert_allclose(sae.table()["density"].to_numpy(), count_F / len(states))

for one in mini.interpretations.rows()[:40]:
    best = mini.max_activating_contexts.of(one["unit"], "top")["rollout_id"].to_numpy()
    assert one["contexts_shown"] <= (~np.isin(best, unshown)).sum()
assert 0 < len(unshown) < rollouts.num_rollouts / 2

unit = next(one for one in mini.max_activating_contexts.table().to_pylist() if one["unit"] == row["unit"])
_, name, sign = row["unit"].split(":")
own_T = np.concatenate([batch.state_BC[:, shards.columns.index(name)] for batch in shards.batches(4096)])
fires_T = (own_T if sign == "+" else -own_T) > unit["threshold"]
assert (len(holds), fires_T.sum()) == (rollouts.num_tokens, unit["n_fired"])
assert fires_T[holds].mean() > 2 * unit["density"], "where its words hold it fires more often than elsewhere"

np.testing.assert_allclose(seen["scalar_T"].numpy(), tokens.state_BC[:, gate], atol=2e-3)
assert tokenizer.decode(tokens.token_id_B) == rollouts.text(context["rollout_id"])
"""


def test_the_blocks_give_what_their_comments_say(tiny: Installation) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    code = here("\n".join([*blocks, CHECKS]))
    done = subprocess.run(
        [sys.executable, "-c", code], env=tiny.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("torch.Tensor", "pyarrow.lib.Table", "fvu"))

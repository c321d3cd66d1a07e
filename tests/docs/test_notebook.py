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
import numpy as np

print(type(mini.batchtopk_sae.W_dec_FD), type(mini.benchmark_scores.table()), mini.manifest("batchtopk_sae").metrics)
shards = mini.activation_shards.shards
assert shards.columns[0] == "L0.q_proj"
tokens = [batch for batch in shards.batches(4096)]
state_T = np.concatenate([batch.state_BC[:, shards.columns.index("L0.gate_proj")] for batch in tokens])
expected_T = np.sort(state_T)[::-1][:5].astype(float)
assert [row[2] for row in strongest.fetchall()] == expected_T.tolist()
"""


def test_the_blocks_give_what_their_comments_say(tiny: Installation) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    code = here("\n".join([*blocks, CHECKS]))
    done = subprocess.run(
        [sys.executable, "-c", code], env=tiny.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("torch.Tensor", "pyarrow.lib.Table", "fvu"))

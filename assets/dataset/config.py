"""Every knob of the rollouts, and the stage that makes them."""

from pydantic import Field, model_validator

from resources.chat import TextForm
from resources.revision import check_commit
from resources.section import Section
from resources.stage import Stage

PUBLISHED = ("simplescaling/s1K-1.1", "96c411f1fe4c49d20f0e2a1565f61e1a28b0b84d")
"""The paper's dataset, of which the paper names no commit: this is the tip of its `main`, the 36th."""


class DatasetConfig(Section):
    """The `dataset` section: which rollouts, and as which text."""

    source: str = PUBLISHED[0]
    """Hub id or local folder of a dataset with one rollout per row (paper: s1K-1.1)."""
    revision: str = PUBLISHED[1]
    """Commit of the hub dataset, pinned so that the key is exact. Unused for a local folder."""
    split: str = "train"
    """Split to read."""
    question_column: str = "question"
    """Column with the user's question (s1K-1.1)."""
    thinking_column: str = "deepseek_thinking_trajectory"
    """Column with the reasoning trajectory (s1K-1.1: DeepSeek-R1's)."""
    attempt_column: str = "deepseek_attempt"
    """Column with the final attempt (s1K-1.1: DeepSeek-R1's)."""
    solution_column: str | None = "solution"
    """Column with the reference solution, shown beside the rollout; null for none."""
    text_form: TextForm = "training"
    """`training`: the tokenizer's chat template, as trained on. `authors_capture`: the text that the authors rebuild
    for capture and ablation, with their own system line and no `<|im_end|>` before the assistant (capture script)."""
    block_size: int = Field(default=20000, ge=8, le=1_048_576)
    """Longest rollout, tokens; what goes beyond is cut and counted (training script; s1: 32768). Rows of more than 64
    characters for each of these tokens are left out, and listed: tokenising them costs more than they give."""
    max_rollouts: int | None = Field(default=None, ge=1)
    """Use only the first so many usable rows; null for all (paper: 1000 rows)."""

    @model_validator(mode="after")
    def _pinned(self) -> "DatasetConfig":
        check_commit(self.source, self.revision, PUBLISHED)
        return self

    def sources(self) -> tuple[str, ...]:
        """The dataset's folder, when it is a local one."""
        return (self.source,)


S1K_DATASET = Stage(
    asset="s1k_dataset",
    room="dataset",
    code_version=3,
    call="assets.dataset.prepare:prepare",
    artifact="assets.dataset.artifact:S1kDataset",
    sections=("model", "dataset"),
)

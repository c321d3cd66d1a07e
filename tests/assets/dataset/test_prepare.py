"""The dataset room from a folder of rows to the two tables: what is kept, what is counted, what is refused."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from assets.dataset.artifact import TOKENS, S1kDataset
from assets.dataset.config import DatasetConfig
from assets.dataset.prepare import DatasetMetrics, prepare
from resources.chat import Rollout, assistant
from resources.errors import BadInput
from resources.models import ModelConfig
from resources.progress import Progress

ROWS = {
    "question": ["What is 1 + 1? é", "b", "c", "d"],
    "solution": ["2", "", None, "4"],
    "deepseek_thinking_trajectory": [" I think… 数学 \n", None, "x" * 500, "y"],
    "deepseek_attempt": ["2", "z", "Answer: 4", "  "],
}


def source(folder: Path, **columns: list[str | None]) -> str:
    folder.mkdir()
    pq.write_table(pa.table(ROWS | columns), folder / "train.parquet")
    return str(folder)


def prepared(model: Path, out: Path, dataset: DatasetConfig) -> tuple[S1kDataset, DatasetMetrics]:
    out.mkdir()
    config = ModelConfig(name=str(model), dtype="float32")
    metrics = prepare(model=config, dataset=dataset, out=out, progress=Progress(lambda _: None))
    return S1kDataset.open(out), metrics


def test_tables_hold_the_chat_templates_ids_and_count_what_is_left_out(tiny_model: Path, tmp_path: Path) -> None:
    name = source(tmp_path / "data")
    found, metrics = prepared(tiny_model, tmp_path / "out", DatasetConfig(source=name, block_size=300))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    turn = assistant(Rollout("", "I think… 数学", "Answer: 2"))
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": ROWS["question"][0]}, {"role": "assistant", "content": turn}], return_dict=False
    )
    assert found.rollout_ids == (0, 2)
    assert found.token_ids(0).tolist() == expected
    assert metrics.skipped == [
        {"row": 1, "reason": "no trajectory"},
        {"row": 3, "reason": "no attempt"},
    ]
    uncut = len(tokenizer(found.text(2))["input_ids"])
    assert (metrics.truncated_rollouts, metrics.truncated_tokens) == (1, uncut - 300)
    assert found.lengths == {0: len(expected), 2: 300}
    assert (metrics.longest, metrics.mean_tokens) == (300, (300 + len(expected)) / 2)
    assert metrics.tokens == found.num_tokens == sum(metrics.tokens_by_role.values())
    assert metrics.loss_tokens == int(found.loss_mask(0).sum() + found.loss_mask(2).sum())
    assert (found.solution(0), found.solution(2)) == ("2", "")


def test_every_token_is_a_rollout_id_and_a_position(tiny_model: Path, tmp_path: Path) -> None:
    found, _ = prepared(tiny_model, tmp_path / "out", DatasetConfig(source=source(tmp_path / "data"), block_size=300))
    flat = pq.read_table(tmp_path / "out" / TOKENS).to_pydict()
    expected = [(r, position) for r in found for position in range(found.lengths[r])]
    assert list(zip(flat["rollout_id"], flat["position"], strict=True)) == expected
    text = "".join(found.around(0, position, 0)[1] for position in range(found.lengths[0]))
    assert text == found.text(0)
    assert "".join(found.around(0, 2, found.lengths[0])) == text
    assert found.around(0, 1, 1) == tuple(found.around(0, position, 0)[1] for position in range(3))


def test_only_the_first_usable_rows_are_taken(tiny_model: Path, tmp_path: Path) -> None:
    dataset = DatasetConfig(source=source(tmp_path / "data"), max_rollouts=1)
    found, metrics = prepared(tiny_model, tmp_path / "out", dataset)
    assert found.rollout_ids == (0,)
    assert metrics.skipped_rows == 0


@pytest.mark.parametrize("unusable", ["q" * 200, "q" * 20_000], ids=["fills the block", "too long"])
def test_a_row_that_is_left_out_does_not_count_among_the_first(tiny_model: Path, tmp_path: Path, unusable: str) -> None:
    attempts: list[str | None] = ["4"] * 4
    name = source(tmp_path / "data", question=[unusable, "b", "c", "d"], deepseek_attempt=attempts)
    dataset = DatasetConfig(source=name, block_size=200, max_rollouts=1)
    found, metrics = prepared(tiny_model, tmp_path / "out", dataset)
    assert found.rollout_ids == (2,)
    assert [skip["row"] for skip in metrics.skipped] == [0, 1]


def test_more_rollouts_than_are_tokenised_at_once_are_cut_off_at_the_number_asked_for(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.dataset.prepare.BATCH", 2)
    columns: dict[str, list[str | None]] = {name: ["4"] * 9 for name in ROWS}
    columns["question"] = ["q" * 200, *"abcdefgh"]
    name = source(tmp_path / "data", **columns)
    dataset = DatasetConfig(source=name, block_size=200, max_rollouts=4)
    found, metrics = prepared(tiny_model, tmp_path / "out", dataset)
    assert found.rollout_ids == (1, 2, 3, 4)
    assert (metrics.rollouts, metrics.skipped_rows) == (4, 1)


def test_a_prompt_that_fills_the_block_is_skipped_and_named(tiny_model: Path, tmp_path: Path) -> None:
    name = source(tmp_path / "data", question=["q" * 200, "b", "c", "d"])
    found, metrics = prepared(tiny_model, tmp_path / "out", DatasetConfig(source=name, block_size=200))
    assert found.rollout_ids == (2,)
    assert metrics.skipped[0] == {"row": 0, "reason": "the prompt alone fills dataset.block_size"}


def test_nothing_left_is_an_error_that_counts_the_reasons(tiny_model: Path, tmp_path: Path) -> None:
    name = source(tmp_path / "data", deepseek_attempt=[None, None, None, None])
    with pytest.raises(BadInput, match="no attempt: 3 rows"):
        prepared(tiny_model, tmp_path / "out", DatasetConfig(source=name))


def test_a_missing_column_is_named_with_those_there_are(tiny_model: Path, tmp_path: Path) -> None:
    dataset = DatasetConfig(source=source(tmp_path / "data"), attempt_column="gemini_attempt")
    with pytest.raises(BadInput, match=r"no column gemini_attempt; it has question, solution"):
        prepared(tiny_model, tmp_path / "out", dataset)


def test_a_rollout_that_does_not_exist_is_named(tiny_model: Path, tmp_path: Path) -> None:
    found, _ = prepared(tiny_model, tmp_path / "out", DatasetConfig(source=source(tmp_path / "data")))
    with pytest.raises(BadInput, match="no rollout 1 "):
        found.token_ids(1)


@pytest.mark.parametrize("words", [259, 3])
def test_a_tokenizer_that_counts_beyond_the_models_embeddings_is_refused(
    tiny_model: Path, tmp_path: Path, words: int
) -> None:
    """256 bytes and 4 special tokens: the largest id is 259."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": words}))
    with pytest.raises(BadInput, match=rf"embeds {words} tokens and its tokenizer counts to 259: take its own one"):
        prepared(model, tmp_path / "out", DatasetConfig(source=source(tmp_path / "data")))

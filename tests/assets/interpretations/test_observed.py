"""Units are told from the tokens on which they were looked at: all of a rollout, or its reply alone."""

from pathlib import Path

import numpy as np
import pytest

from assets.interpretations.corpus import Corpus
from assets.interpretations.explain import kinds_with_prompts, statistical_rows
from assets.interpretations.predicates import Background
from assets.interpretations.statistical import StatisticalExplainer
from tests.assets.interpretations.conftest import SILENT, STATISTICAL, Explained
from tests.assets.interpretations.world import build_world, jitter, token_rule, write_contexts, write_dataset


def test_where_replies_alone_were_captured_a_unit_is_told_from_other_replies(tmp_path: Path) -> None:
    """Units that fire on a quarter of the tokens at random. Against whole rollouts, a quarter of them prompts, each of
    the forty is in excess "inside the think block"; against replies 8 are by chance, where all is captured 5."""
    world = build_world()
    for number in range(40):
        salt = [str(number)]
        world.units[f"latent:{number}"] = lambda words, at, salt=salt: max(0.0, jitter(words + salt, at) - 1.75)
    dataset = write_dataset(world, tmp_path / "dataset")
    write_contexts(world, tmp_path / "contexts", captured_from=15)
    told = statistical_rows(STATISTICAL, Corpus.open(dataset), tmp_path / "contexts", SILENT)
    assert len(told) == 40
    assert sum("block" in row["predicate"] for row in told) <= 10


def test_tokens_are_observed_everywhere_or_in_replies_alone(explained: Explained) -> None:
    corpus = Corpus.open(explained.dataset)
    assert len(corpus) == len(corpus.observed_O) == 120 * 60
    replies = corpus.replies()  # the first fifteen of a rollout are its prompt
    assert replies.observed_O.tolist() == [at for at in range(120 * 60) if at % 60 >= 15]
    background = Background.sample(replies, 10_000, seed=0)
    assert np.array_equal(background.features_FM, corpus.features(replies.observed_O))


def test_kinds_were_looked_at_on_prompts_where_a_window_holds_one(tmp_path: Path) -> None:
    world = build_world()
    world.units = {"latent:0": token_rule(" Wait"), "neuron:L0.3:+": token_rule(" so")}
    corpus = Corpus.open(write_dataset(world, tmp_path / "dataset"))
    for first, kinds in ((0, {"latent", "neuron"}), (14, {"latent", "neuron"}), (15, set())):
        assert kinds_with_prompts(write_contexts(world, tmp_path / str(first), captured_from=first), corpus) == kinds


def test_null_positions_are_drawn_where_units_were_looked_at(
    explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = StatisticalExplainer(Corpus.open(explained.dataset).replies(), STATISTICAL)
    drawn: list[np.ndarray] = []
    tried = explainer._trial
    monkeypatch.setattr(explainer, "_trial", lambda peaks, *rest: drawn.append(peaks) or tried(peaks, *rest))
    explainer.build_null([np.arange(15, 60)])
    assert np.concatenate(drawn).min() >= 15
    assert set((np.concatenate(drawn) % 60).tolist()) == set(range(15, 60))

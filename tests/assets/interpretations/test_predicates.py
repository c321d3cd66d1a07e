"""The search for predicates against trying every one, by the definition."""

import numpy as np
import pytest

from assets.interpretations.artifact import FAMILIES
from assets.interpretations.corpus import Corpus
from assets.interpretations.predicates import LEAST_GAIN, Background, find, surprise

VOCABULARY = (" a", "Hi", "7", "\n", "+", "wait")
TOKENS, ROLLOUT = 1500, 100
Chosen = tuple[str, frozenset[tuple[str, int]]]
"""How the parts are joined, and the parts."""


def corpus_of(seed: int) -> Corpus:
    token_N = np.random.default_rng(seed).integers(0, len(VOCABULARY), TOKENS)
    place_N = np.arange(TOKENS)
    return Corpus.build(place_N // ROLLOUT, place_N % ROLLOUT, token_N, np.full(TOKENS, 2), VOCABULARY)


def every_score(background: Background, features_Fn: np.ndarray, weight_n: np.ndarray) -> dict[Chosen, float]:
    """Of each single predicate, the best one narrowed by each, and each widened by its family's most frequent."""
    n = features_Fn.shape[1]
    weight_n = weight_n * n / weight_n.sum()
    parts = [(f, v) for f in range(len(FAMILIES)) for v in np.unique(features_Fn[f]).tolist() if v >= 0]
    on_n = {part: features_Fn[part[0]] == part[1] for part in parts}
    on_M = {part: background.features_FM[part[0]] == part[1] for part in parts}
    weight = {part: weight_n[on_n[part]].sum() for part in parts}
    price = {part: background.price_F[part[0]] for part in parts}

    def score(positive: float, negative: float, cost: float) -> float:
        return surprise(np.array([positive]), n, np.array([negative]), background.size).item() - cost

    def named(join: str, *chosen: tuple[int, int]) -> Chosen:
        return join, frozenset((FAMILIES[family], value) for family, value in chosen)

    singles = {part: score(weight[part], on_M[part].sum(), price[part]) for part in parts}
    best = max(singles, key=lambda part: singles[part])
    found = {named("", best): singles[best] + LEAST_GAIN}
    for part in parts:
        both = weight_n[on_n[best] & on_n[part]].sum(), (on_M[best] & on_M[part]).sum()
        found[named("and", best, part)] = score(*both, price[best] + price[part])
        partner = max((other for other in parts if other[0] == part[0]), key=lambda other: weight[other])
        if partner != part:
            either = weight[part] + weight[partner], on_M[part].sum() + on_M[partner].sum()
            found[named("or", part, partner)] = score(*either, 2 * price[part])
    return found


def search(places: np.ndarray, corpus: Corpus, seed: int) -> tuple[str, dict[Chosen, float], float]:
    """How what is found is joined, every score, and that of what is found."""
    background = Background.sample(corpus, TOKENS, seed)
    features_Fn, weight_n = corpus.features(places), np.random.default_rng(seed).random(len(places))
    predicate, scores = find(background, features_Fn, weight_n), every_score(background, features_Fn, weight_n)
    assert predicate is not None
    return predicate.join, scores, scores[predicate.join, frozenset(predicate.parts)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("join", ["", "and", "or"])
def test_the_search_finds_the_predicate_of_the_highest_score(join: str, seed: int) -> None:
    """Of 32 places, 4 are random; strengths are random too."""
    corpus, rng = corpus_of(seed), np.random.default_rng(seed)
    two, five, after_five = corpus.token_N == 2, corpus.token_N == 5, np.roll(corpus.token_N, 1) == 5
    rules = {"": [two], "and": [two & after_five], "or": [two, five]}[join]
    planted = [rng.choice(np.flatnonzero(rule), 28 // len(rules), replace=False) for rule in rules]
    found, scores, score = search(np.concatenate([*planted, rng.integers(0, TOKENS, 4)]), corpus, seed)
    assert found == join
    assert score == pytest.approx(max(scores.values()))


@pytest.mark.parametrize("join", ["and", "or"])
def test_a_second_predicate_must_add_more_than_its_price(join: str) -> None:
    """Of 20 places of a token, more and more come after another one, or are that other one."""
    corpus, rng = corpus_of(0), np.random.default_rng(0)
    two, five, after_five = corpus.token_N == 2, corpus.token_N == 5, np.roll(corpus.token_N, 1) == 5
    one, other = (two & ~after_five, two & after_five) if join == "and" else (two, five)
    joins, spared = [], 0
    for many in range(21):
        rules = ((other, many), (one, 20 - many))
        planted = [rng.choice(np.flatnonzero(rule), count, replace=False) for rule, count in rules]
        found, scores, score = search(np.concatenate(planted), corpus, 0)
        assert score == pytest.approx(max(scores.values()))
        joins.append(found)
        (single,) = (value for (joined, _), value in scores.items() if not joined)
        spared += not found and max(value for (joined, _), value in scores.items() if joined) > single - LEAST_GAIN
    assert (joins[0], joins[20 if join == "and" else 10], spared > 0) == ("", join, True)


@pytest.mark.parametrize("numbered", [VOCABULARY, VOCABULARY[::-1]])
@pytest.mark.parametrize(("plus", "wait"), [(14, 9), (9, 14)])
def test_of_two_tokens_the_commoner_is_named_first_however_the_tokenizer_numbers_them(
    numbered: tuple[str, ...], plus: int, wait: int
) -> None:
    same = corpus_of(0)
    token_N = np.array([numbered.index(word) for word in VOCABULARY])[same.token_N]
    place_N = np.arange(TOKENS)
    corpus = Corpus.build(place_N // ROLLOUT, place_N % ROLLOUT, token_N, same.role_N, numbered)
    places = [np.flatnonzero(token_N == numbered.index(word))[:n] for word, n in (("+", plus), ("wait", wait))]
    features_Fn = corpus.features(np.concatenate(places))
    predicate = find(Background.sample(corpus, TOKENS, 0), features_Fn, np.ones(plus + wait))
    named = {'token "+"': "operator", 'token "wait"': "lowercase word piece"}
    commoner_first = sorted(named, reverse=wait > plus)
    assert predicate is not None
    assert predicate.words == " or ".join(commoner_first)
    assert predicate.classes == tuple(named[words] for words in commoner_first)


@pytest.mark.parametrize("numbered", [(" That", " that"), (" that", " That")])
@pytest.mark.parametrize(("often", "name"), [(" That", "capitalised word"), (" that", "lowercase word")])
def test_a_word_in_any_case_is_of_the_class_of_its_commonest_token(
    numbered: tuple[str, ...], often: str, name: str
) -> None:
    token_N = np.array([numbered.index(often)] * 3 + [1 - numbered.index(often)])
    corpus = Corpus.build(np.zeros(4, int), np.arange(4), token_N, np.full(4, 2), numbered)
    assert corpus.class_of(FAMILIES.index("word"), 0) == name

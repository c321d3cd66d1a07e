"""What a judge is shown: held-out windows alone, half of them firing, and quiet ones that look like them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from assets.interpretations.config import ScoresConfig
from assets.interpretations.corpus import Corpus, quoted
from assets.interpretations.evidence import HALF_A, HELD_OUT, Evidence, Window
from assets.interpretations.examples import Example, draw_examples, draw_intruder, draw_marked
from assets.interpretations.excerpts import Excerpts
from resources.llm.prompts import escaped
from tests.assets.interpretations.conftest import Explained

Draw = Callable[[Evidence, ScoresConfig, Corpus, np.random.Generator], list[Example]]
LENGTH, AT, SAME_TOKEN, QUIET_AT = 30, 15, 11, 5
"""Every rollout has the firing token at 15, where the unit fires, and at 11, where it does not."""
SCORES = ScoresConfig(examples=8, tokens_around=2)


def corpus_of(rollouts: int) -> Corpus:
    token_T = np.zeros(LENGTH, np.int64)
    token_T[[AT, SAME_TOKEN]] = 1
    ids = np.repeat(np.arange(rollouts), LENGTH)
    place = np.tile(np.arange(LENGTH), rollouts)
    return Corpus.build(ids, place, np.tile(token_T, rollouts), np.full(len(ids), 2), (" a", " b"))


def evidence_of(corpus: Corpus, firing: int, silent: int) -> Evidence:
    """Of rollouts 0, 1, ...: `firing` windows from 6 on, then `silent` ones, all held out but the last rollout's."""
    values = np.zeros(15)
    values[[0, AT - 1 - 6, AT - 6]] = 0.5, 0.5, 2.0
    fires = [Window(rollout, AT, 2.0, 6, values, "top", True) for rollout in range(firing)]
    still = [Window(firing + i, QUIET_AT, 0.0, 0, np.zeros(10), "silent", True) for i in range(silent)]
    seen = [
        Window(firing + silent, AT, 2.0, 6, values, "top", False),
        Window(firing + silent, QUIET_AT, 0.0, 0, np.zeros(10), "silent", False),
    ]
    peaks = [*fires, seen[0]]
    return Evidence(
        "latent:1", "latent", np.array([corpus.first[window.rollout_id] + AT for window in peaks]),
        np.full(len(peaks), 2.0), np.array([HELD_OUT] * firing + [HALF_A]), np.ones(len(peaks), bool),
        np.zeros(len(peaks), bool), np.empty(0, np.int64), np.empty(0, np.int64), (*peaks, *still, seen[1]),
    )  # fmt: skip


def drawn(make: Draw, firing: int, silent: int) -> list[Example]:
    corpus = corpus_of(firing + silent + 1)
    return make(evidence_of(corpus, firing, silent), SCORES, corpus, np.random.default_rng(0))


def test_a_draw_is_half_firing_a_quarter_of_the_same_token_and_a_quarter_quiet_all_held_out() -> None:
    found = drawn(draw_examples, 6, 4)
    assert Counter((one.fires, one.hard, one.centre) for one in found) == {
        (True, False, AT): 4, (False, True, SAME_TOKEN): 2, (False, False, QUIET_AT): 2,
    }  # fmt: skip
    assert len({(one.window.rollout_id, one.centre) for one in found}) == 8
    assert all(one.window.held_out for one in found)
    assert [one.fires for one in found] != sorted((one.fires for one in found), reverse=True)


def test_a_unit_with_fewer_than_two_firing_or_quiet_windows_is_not_judged() -> None:
    assert drawn(draw_examples, 1, 4) == drawn(draw_marked, 1, 4) == drawn(draw_intruder, 3, 4) == []
    assert len(drawn(draw_examples, 2, 0)) == 4  # a same-token window beside each firing one
    assert len(drawn(draw_marked, 2, 0)) == 2
    assert drawn(draw_examples, 0, 4) == []


def test_half_of_the_marked_windows_have_their_firing_tokens_marked_and_half_as_many_quiet_ones() -> None:
    found = drawn(draw_marked, 6, 0)
    assert Counter((one.fires, one.hard) for one in found) == {(True, False): 3, (False, True): 3}
    for one in found:  # 14 fires too, and 6, which is not shown
        assert len(one.marked) == 2
        assert one.marked == {14, 15} if one.fires else one.marked < {13, 16, 17}


def test_a_unit_that_fires_on_every_token_of_its_windows_has_none_to_be_marked_wrongly() -> None:
    corpus = corpus_of(7)
    dense = [replace(window, values=np.ones(15)) for window in evidence_of(corpus, 6, 0).windows]
    evidence = replace(evidence_of(corpus, 6, 0), windows=tuple(dense))
    assert draw_marked(evidence, SCORES, corpus, np.random.default_rng(0)) == []


def test_an_intruder_is_one_quiet_window_among_four_firing_ones_or_one_of_the_same_token() -> None:
    for silent, centre, hard in ((4, QUIET_AT, False), (0, SAME_TOKEN, True)):
        found = drawn(draw_intruder, 4, silent)
        assert Counter(one.fires for one in found) == {True: 4, False: 1}
        (intruder,) = (one for one in found if not one.fires)
        assert (intruder.centre, intruder.hard) == (centre, hard)


def test_a_context_lists_its_strongest_tokens_on_the_scale_of_all_that_are_shown(explained: Explained) -> None:
    words = explained.world.texts[0]
    # Of the strongest context, 4: 2.5, 1.25, 5, 10 and nothing at 3 to 7; the 8 at 2 lies outside.
    window = Window(0, 5, 2.0, 2, np.array([8.0, 1.0, 0.5, 2.0, 4.0, 0.0, 0.0]), "top", False)
    found = Excerpts(explained.dataset).context(3, window, 4.0, 2, 2.0, 2)
    six, five = (escaped(quoted(words[at])) for at in (6, 5))
    shown = "".join(escaped(word) for word in words[3:8])
    listed = f"<active>\n{six} 10.00\n{five} 5.00\n</active>"
    assert found == f'<example number="3">\n...{shown}...\n{listed}\n</example>'


def test_an_excerpt_ends_with_dots_where_the_rollout_goes_on(explained: Explained) -> None:
    words = [escaped(word) for word in explained.world.texts[0]]
    last = len(words) - 1
    cases = [
        (0, 1, f"{words[0]}«{words[1]}»{words[2]}..."),
        (1, 1, f"...«{words[1]}»{words[2]}..."),
        (last - 2, last, f"...{words[-2]}{words[-1]}"),
    ]
    for start, centre, wanted in cases:
        window = Window(0, centre, 0.0, start, np.zeros(min(4, last + 1 - start)), "silent", True)
        found = Excerpts(explained.dataset).example(1, window, centre, 1, frozenset({1}))
        assert found == f'<example number="1">\n{wanted}\n</example>'

"""What was paid for is found again as it was, and a batch under way by the endpoint that it was sent to."""

from dataclasses import replace
from pathlib import Path

from resources.llm.cache import FILE_NAME, ResponseCache, SentBatch, Stored, list_cache


def test_the_first_answer_to_a_question_stays_and_answers_are_listed_by_age(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / FILE_NAME)
    first = Stored("k1", "openai", "m", "", "v1", "{}", '"first"', 1, 2, 0.5, 20.0)
    for stored in (first, replace(first, response='"second"', dollars=9.0), replace(first, key="k2", created=10.0)):
        cache.put(stored)
    assert (cache.get("k1"), cache.get("k3")) == ('"first"', None)
    assert [stored.key for stored in cache.rows()] == ["k2", "k1"]
    cache.close()
    (row,) = list_cache(tmp_path / FILE_NAME)
    assert (row["answers"], row["input_tokens"], row["output_tokens"], row["dollars"]) == (2, 2, 4, 1.0)


def test_a_batch_is_known_at_its_endpoint_alone_by_the_vendors_name_until_it_is_collected(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / FILE_NAME)
    sent, later = SentBatch("ours", "", ["k1", "k2"], 7, 0.5, 10.0), SentBatch("later", "", ["k3"], 8, 0.25, 20.0)
    for batch in (later, sent):
        cache.add_batch(batch, "here")
    confirmed = cache.confirm_batch(sent, "theirs", "{}")
    assert confirmed == replace(sent, id="theirs", handle="{}")
    assert cache.batches("here") == [confirmed, later]
    assert cache.batches("elsewhere") == []
    cache.forget_batch("theirs")
    assert cache.batches("here") == [later]
    cache.close()

"""Batches of both vendors: the same answers, resumed by what was sent, never sent twice."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from resources.errors import BadInput
from resources.llm import batch
from resources.llm.ask import ask
from resources.llm.cache import FILE_NAME
from resources.llm.endpoint import Provider
from resources.llm.ledger import Ledger
from resources.llm.question import Question
from resources.progress import Progress
from tests.resources.llm.fault_server import Settings
from tests.resources.llm.servers import (
    BATCH,
    KEY,
    PROJECT,
    QUICK,
    SILENT,
    Label,
    batches_noted,
    questions,
    serving,
    set_aside,
    wait_until,
)

VENDORS: tuple[Provider, ...] = ("openai", "anthropic")


@pytest.mark.parametrize("provider", VENDORS)
def test_a_batch_answers_what_the_cache_lacks(provider: Provider) -> None:
    with serving(Settings(key=KEY)) as server:
        endpoint = server.endpoint(provider)
        live = ask(questions(5), 5, endpoint, QUICK, SILENT, "label")
        asked = ask(questions(20), 20, endpoint, BATCH, SILENT, "label")
        counts = server.counts()
    assert (len(asked.answers), asked.bill.cached, asked.bill.requests) == (20, 5, 15)
    assert all(isinstance(answer.value, Label) for answer in asked.answers.values())
    assert (counts["batches"], counts["requests"]) == (1, 20)
    assert asked.answers["latent:1", 0].value == live.answers["latent:1", 0].value
    # Both vendors charge half in a batch; the server counts list prices.
    assert live.bill.cost_usd + 2 * asked.bill.cost_usd == pytest.approx(counts["dollars"], rel=1e-6)


@pytest.mark.parametrize("provider", VENDORS)
@pytest.mark.parametrize(("most", "batches"), [(7000, 3), (1, 10)])
def test_prompts_that_are_too_large_for_one_upload_go_into_several(
    provider: Provider, most: int, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_BYTES", most)
    with serving(Settings(key=KEY)) as server:
        asked = ask(questions(10, size=600), 10, server.endpoint(provider), BATCH, SILENT, "label")
        counts = server.counts()
    assert (len(asked.answers), asked.bill.requests, counts["requests"], counts["batches"]) == (10, 10, 10, batches)


def test_a_run_that_waits_for_a_batch_says_for_which_and_since_when() -> None:
    said: list[str] = []
    with serving(Settings(key=KEY)) as server:
        ask(questions(7), 7, server.endpoint(), BATCH, Progress(said.append), "label")
    waiting = r"label: waiting for batch batch_0 of openai/gpt-5-mini, sent 20[-: 0-9]+\+00:00 with 7 requests; it may"
    assert re.match(waiting, said[0]), said
    assert said[1].startswith("label 7/7")


def test_answers_of_a_batch_come_at_once_and_none_of_them_tells_a_time_left_by_the_wait_before_it() -> None:
    said: list[str] = []
    with serving(Settings(key=KEY)) as server:
        ask(questions(5), 5, server.endpoint(), QUICK, SILENT, "label")
        ask(questions(20), 20, server.endpoint(), BATCH, Progress(said.append, interval_s=0), "label")
    waited = next(number for number, line in enumerate(said) if "waiting for batch" in line)
    assert [line.split("  ")[0] for line in said[waited + 1 :]] == ["label 20/20"]


@pytest.mark.parametrize("provider", VENDORS)
def test_faults_in_a_batch_go_into_the_next_one(provider: Provider) -> None:
    with serving(Settings(key=KEY, fault_share=0.25, seed=5)) as server:
        asked = ask(questions(80), 80, server.endpoint(provider), BATCH, SILENT, "label")
        counts = server.counts()
    assert len(asked.answers) == 80
    assert sum(answer.value is None for answer in asked.answers.values()) <= 1
    paid_faults = sum(counts["failed"].get(kind, 0) for kind in ("refusal", "truncated", "malformed", "wrong"))
    assert counts["answered"] <= 1.15 * 80 + paid_faults
    assert counts["repeated"] == 0
    assert counts["batches"] > 1


RUN = """
import sys
from resources.llm.ask import ask
from resources.llm.endpoint import Endpoint
from tests.resources.llm.servers import BATCH, SILENT, questions
endpoint = Endpoint(sys.argv[1], sys.argv[2], sys.argv[3], max_output_tokens=1000)
print(len(ask(questions(40), 40, endpoint, BATCH, SILENT, "label").answers))
"""


@pytest.mark.slow
@pytest.mark.parametrize("provider", VENDORS)
def test_a_killed_run_finds_its_batch_again(provider: Provider, home: Path) -> None:
    with serving(Settings(key=KEY, batch_polls=60)) as server:
        endpoint = server.endpoint(provider)
        command = [sys.executable, "-c", RUN, provider, endpoint.model, endpoint.base_url]
        process = subprocess.Popen(command, cwd=PROJECT, env=os.environ, stdout=subprocess.DEVNULL)
        wait_until(lambda: (home / FILE_NAME).exists() and batches_noted(home, endpoint.name))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = subprocess.run(command, cwd=PROJECT, env=os.environ, capture_output=True, text=True, check=True)
        counts = server.counts()
    assert int(done.stdout) == 40
    assert (counts["batches"], counts["requests"], counts["repeated"]) == (1, 40, 0)
    assert not batches_noted(home, endpoint.name)


@pytest.mark.slow
@pytest.mark.parametrize("provider", VENDORS)
def test_another_experiments_run_leaves_a_killed_runs_batch_to_it(provider: Provider, home: Path) -> None:
    """The other one shares 10 of the 40 questions: it takes their answers, and the rest is still there afterwards."""
    with serving(Settings(key=KEY, batch_polls=60)) as server:
        endpoint = server.endpoint(provider)
        command = [sys.executable, "-c", RUN, provider, endpoint.model, endpoint.base_url]
        process = subprocess.Popen(command, cwd=PROJECT, env=os.environ, stdout=subprocess.DEVNULL)
        wait_until(lambda: server.counts()["batches"] == 1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        stranger = ask(questions(5, start=900), 5, endpoint, BATCH, SILENT, "label")
        assert server.counts()["batches"] == 2
        shared = ask(questions(20, start=30), 20, endpoint, BATCH, SILENT, "label")
        assert (len(stranger.answers), len(shared.answers)) == (5, 20)
        done = subprocess.run(command, cwd=PROJECT, env=os.environ, capture_output=True, text=True, check=True)
        counts = server.counts()
    assert int(done.stdout) == 40
    assert (counts["batches"], counts["requests"], counts["repeated"]) == (3, 40 + 5 + 10, 0)
    assert not batches_noted(home, endpoint.name)


@pytest.mark.parametrize("provider", VENDORS)
def test_a_batch_never_passes_the_cap(provider: Provider) -> None:
    with serving(Settings(key=KEY)) as server:
        with pytest.raises(BadInput, match="stopped at this run's cap"):
            ask(questions(200), 200, server.endpoint(provider), replace(BATCH, run_dollars=0.012), SILENT, "label")
        counts = server.counts()
        assert 0 < counts["answered"] < 200
        assert counts["dollars"] / 2 <= 0.012


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_ends_before_its_batch_is_settled_leaves_the_batch_to_the_next_and_no_money_aside(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Settings(key=KEY)) as server:
        endpoint = server.endpoint("openai")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Ledger, "settle", _die)
            ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert batches_noted(home, endpoint.name)
        done = ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (len(done.answers), server.counts()["batches"]) == (5, 1)
    assert not batches_noted(home, endpoint.name)
    assert set_aside(home) == 0


def test_a_wrong_key_sends_no_batch() -> None:
    with serving(Settings(key="another")) as server:
        for provider in VENDORS:
            with pytest.raises(BadInput, match="refuses the batch"):
                ask(questions(5), 5, server.endpoint(provider), BATCH, SILENT, "label")
        assert server.counts()["unauthorized"] == 2


def test_a_local_endpoint_has_no_batches() -> None:
    with serving(Settings(key=KEY)) as server, pytest.raises(BadInput, match="use live"):
        ask(questions(5), 5, server.endpoint("openai-compatible"), BATCH, SILENT, "label")


def test_a_batch_that_fails_as_a_whole_ends_the_run_and_marks_no_question_as_failed(home: Path) -> None:
    with serving(Settings(key=KEY, failing=(1, 2))) as server:
        ask(questions(5), 5, server.endpoint(), BATCH, SILENT, "label")
        for _ in range(2):
            with pytest.raises(BadInput, match=r"ran none of the batch: The provided model .* 5 of 9 .* kept"):
                ask(questions(9), 9, server.endpoint(), BATCH, SILENT, "label")
            assert set_aside(home) == 0
        asked = ask(questions(9), 9, server.endpoint(), BATCH, SILENT, "label")
    assert (asked.bill.requests, asked.bill.cached) == (4, 5)
    assert all(answer.value for answer in asked.answers.values())


def test_a_batch_that_somebody_cancels_is_not_sent_again() -> None:
    with serving(Settings(key=KEY, canceled=(0,))) as server:
        with pytest.raises(BadInput, match=r"a batch was cancelled at the vendor's"):
            ask(questions(5), 5, server.endpoint(), BATCH, SILENT, "label")
        assert server.counts()["batches"] == 1
        asked = ask(questions(5), 5, server.endpoint(), BATCH, SILENT, "label")
    assert asked.bill.requests == 5


@pytest.mark.parametrize("provider", VENDORS)
def test_a_prompt_that_is_too_long_loses_contexts_in_a_batch_as_in_live_asking(provider: Provider) -> None:
    def build_long(blocks: int) -> Question:
        return Question(
            "latent:1", "s", "x" * (blocks * 100), Label, "v1",
            shorter=lambda: build_long(blocks // 2) if blocks > 1 else None, note=f"{blocks} blocks",
        )  # fmt: skip

    with serving(Settings(key=KEY, context_bytes=4500)) as server:
        (answer,) = ask([build_long(64)], 1, server.endpoint(provider), BATCH, SILENT, "label").answers.values()
    assert answer.value is not None
    assert answer.note == "32 blocks"


@pytest.mark.parametrize("provider", VENDORS)
def test_a_noted_batch_whose_results_are_gone_is_given_up_as_paid_and_sent_again(
    provider: Provider, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with serving(Settings(key=KEY, gone=(0,))) as server:
        endpoint = server.endpoint(provider)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(batch.BatchRun, "_collect", _die)
            ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert batches_noted(home, endpoint.name)
        done = ask(questions(5), 5, endpoint, BATCH, Progress(said.append), "label")
        assert (done.bill.requests, server.counts()["batches"]) == (5, 2)
    assert all(answer.value for answer in done.answers.values())
    assert done.unknown_usd >= done.bill.cost_usd > 0
    assert [line for line in said if "gone" in line] == [
        f"label: the results of batch batch_0 of {endpoint.name} are gone; its 5 requests count as "
        "paid, and are sent again where they are still asked for"
    ]
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


def test_a_noted_batch_that_a_wrong_key_cannot_read_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Settings(key=KEY)) as server:
        endpoint = server.endpoint()
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(batch.BatchRun, "_collect", _die)
            ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        with monkeypatch.context() as patched, pytest.raises(BadInput, match="refuses the batch"):
            patched.setenv("OPENAI_API_KEY", "another")
            ask(questions(5), 5, endpoint, BATCH, SILENT, "label")
        assert (batches_noted(home, endpoint.name), set_aside(home)) == (True, 1)


def test_an_answer_that_the_library_cannot_read_fails_its_question_and_no_other(home: Path) -> None:
    with serving(Settings(key=KEY, fault_share=0.3, faults=("unheard-of",), seed=1)) as server:
        endpoint = server.endpoint("anthropic")
        asked = ask(questions(20), 20, endpoint, BATCH, SILENT, "label")
        counts = server.counts()
    failed = [answer for answer in asked.answers.values() if answer.value is None]
    assert len(failed) == counts["failed"]["unheard-of"] > 0
    assert all(answer.failure.startswith("the answer cannot be read: message.stop_reason ") for answer in failed)
    assert (len(asked.answers), counts["requests"], any(answer.lost for answer in failed)) == (20, 20, False)
    # They were paid for, and nobody knows how much: each counts at its most, at half of $1 and $5 per million tokens.
    unread = [question for question in questions(20) if question.id in {answer.id for answer in failed}]
    most = sum(0.5e-6 * question.most_input_tokens + 2.5e-6 * endpoint.max_output_tokens for question in unread)
    assert asked.unknown_usd == pytest.approx(most)
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


@pytest.mark.parametrize("provider", VENDORS)
def test_what_a_batch_did_not_run_within_its_day_is_lost_and_not_failed(provider: Provider) -> None:
    with serving(Settings(key=KEY, expired=(0,))) as server:
        endpoint = server.endpoint(provider)
        asked = ask(questions(10), 10, endpoint, replace(BATCH, attempts=1), SILENT, "label")
        again = ask(questions(10), 10, endpoint, BATCH, SILENT, "label")
    unanswered = [answer for answer in asked.answers.values() if answer.value is None]
    assert [answer.lost for answer in unanswered] == [True] * 5
    assert "expired" in unanswered[0].failure
    assert (again.bill.cached, again.bill.requests) == (5, 5)


@pytest.mark.parametrize("attempts", [1, 8])
def test_a_batch_that_the_vendors_queue_has_no_room_for_is_halved_until_it_fits(attempts: int, home: Path) -> None:
    said: list[str] = []
    limits = replace(BATCH, attempts=attempts)
    with serving(Settings(key=KEY, queue=3)) as server:
        endpoint = server.endpoint()
        asked = ask(questions(11), 11, endpoint, limits, Progress(said.append), "label")
        counts = server.counts()
    assert all(answer.value for answer in asked.answers.values())
    assert asked.bill.requests == 11
    # 11 and 5 are too many; 2, 2, 2, 2, 2 and 1 are not.
    assert counts["batches"] == 2 + 6
    assert [line.split(";")[1] for line in said if "no room" in line] == [" sends 5 at once", " sends 2 at once"]
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


def test_a_queue_without_room_for_one_request_ends_the_run(home: Path) -> None:
    with serving(Settings(key=KEY, queue=0)) as server:
        endpoint = server.endpoint()
        with pytest.raises(BadInput, match=r"ran none of the batch: Enqueued token limit .* 0 of 3 "):
            ask(questions(3), 3, endpoint, BATCH, SILENT, "label")
        assert server.counts()["batches"] == 2
    assert (batches_noted(home, endpoint.name), set_aside(home)) == (False, 0)


def test_a_killed_runs_batch_that_the_queue_had_no_room_for_is_sent_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Settings(key=KEY, queue=3)) as server:
        endpoint = server.endpoint()
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(batch.BatchRun, "_collect", _die)
            ask(questions(6), 6, endpoint, BATCH, SILENT, "label")
        asked = ask(questions(6), 6, endpoint, BATCH, SILENT, "label")
        assert (asked.bill.requests, server.counts()["batches"]) == (6, 3)

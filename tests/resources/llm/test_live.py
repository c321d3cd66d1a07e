"""Live asking against a server that fails a quarter of its calls, counted where the requests arrive."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from resources.errors import BadInput
from resources.llm.ask import Asked, ask
from resources.llm.cache import FILE_NAME, list_cache
from resources.llm.endpoint import KEY_VARIABLES, Endpoint, Provider
from resources.llm.limits import Limits
from resources.llm.question import Question
from resources.progress import Progress
from tests.resources.llm.fault_server import Settings
from tests.resources.llm.servers import KEY, PROJECT, QUICK, SILENT, Label, Server, questions, serving, wait_until

PAID: tuple[Provider, ...] = ("openai", "anthropic")
PROVIDERS: tuple[Provider, ...] = (*PAID, "openai-compatible")


def _ask(server: Server, count: int, limits: Limits = QUICK, provider: Provider = "openai", **changes: object) -> Asked:
    return ask(questions(count), count, server.endpoint(provider, **changes), limits, SILENT, "label")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_question_is_answered_once_and_never_paid_again(provider: Provider) -> None:
    with serving(Settings(key=KEY)) as server:
        first = _ask(server, 30, provider=provider)
        assert all(isinstance(answer.value, Label) for answer in first.answers.values())
        assert (first.bill.requests, first.bill.cached) == (30, 0)
        again = _ask(server, 40, provider=provider)
        assert (again.bill.requests, again.bill.cached) == (10, 30)
        assert server.counts()["requests"] == 40
        assert server.counts()["most_at_once"] <= QUICK.concurrency
        if provider != "openai-compatible":
            assert first.bill.cost_usd + again.bill.cost_usd == pytest.approx(server.counts()["dollars"], rel=1e-6)


def test_answers_that_were_kept_do_not_shorten_the_time_that_the_others_take() -> None:
    said: list[str] = []
    with serving(Settings(key=KEY, latency_s=0.2)) as server:
        _ask(server, 100)
        progress = Progress(said.append, interval_s=0)
        ask(questions(140), 140, server.endpoint(), replace(QUICK, concurrency=2), progress, "label")
    halfway = next(line for line in said if line.startswith("label 120/140"))
    left = int(halfway.rsplit("  ", 1)[1].removesuffix(" s left"))
    assert left >= 1, halfway  # twenty more, ten a second at most


def test_what_several_items_ask_alike_is_paid_once_and_answered_alike() -> None:
    (question,) = questions(1)
    alike = [replace(question, id=f"item {number}") for number in range(30)]
    with serving(Settings(key=KEY, latency_s=0.1)) as server:
        asked = ask(alike, 30, server.endpoint(), QUICK, SILENT, "judge")
        assert server.counts()["requests"] == 1
    assert len(asked.answers) == 30
    assert len({answer.value.model_dump_json() for answer in asked.answers.values() if answer.value}) == 1


def test_after_the_first_answer_everyone_asks_at_once() -> None:
    with serving(Settings(key=KEY, latency_s=0.5)) as server:
        _ask(server, QUICK.concurrency + 1)
        assert server.counts()["most_at_once"] >= QUICK.concurrency - 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_quarter_of_faults_loses_no_unit(provider: Provider) -> None:
    with serving(Settings(key=KEY, fault_share=0.25, seed=3, retry_after_s=0.02, timeout_s=4)) as server:
        asked = _ask(server, 120, provider=provider)
        counts = server.counts()
    assert len(asked.answers) == 120
    failed = [answer for answer in asked.answers.values() if answer.value is None]
    assert all(answer.failure for answer in failed)
    assert len(failed) <= 1
    # Paid: every usable answer once, plus what the server itself spoiled.
    paid_faults = sum(counts["failed"].get(kind, 0) for kind in ("refusal", "truncated", "malformed", "wrong"))
    assert counts["answered"] <= 1.15 * 120 + paid_faults
    assert set(counts["failed"]) >= {"429", "500", "cut", "malformed"}


def test_a_units_reason_is_told_when_it_can_never_be_answered() -> None:
    with serving(Settings(key=KEY, fault_share=1.0, faults=("malformed",))) as server:
        asked = _ask(server, 3, replace(QUICK, unusable=2))
    reasons = {answer.failure for answer in asked.answers.values()}
    assert len(asked.answers) == 3
    assert all("does not fit the schema" in reason and "2 answers" in reason for reason in reasons)


def test_refusals_and_cut_answers_are_told_apart() -> None:
    for fault, words in (("refusal", "refused"), ("truncated", "token limit")):
        with serving(Settings(key=KEY, fault_share=1.0, faults=(fault,))) as server:
            for provider in PROVIDERS:
                asked = _ask(server, 1, replace(QUICK, unusable=1), provider)
                (answer,) = asked.answers.values()
                assert words in answer.failure


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_wrong_key_is_tried_once(provider: Provider) -> None:
    with serving(Settings(key="another")) as server:
        with pytest.raises(BadInput, match="refuses") as caught:
            _ask(server, 100, provider=provider)
        assert server.counts()["unauthorized"] == 1
    assert KEY not in str(caught.value)
    assert "[key]" in str(caught.value)
    assert f"; set its key in {KEY_VARIABLES[provider]};" in str(caught.value)


def test_no_key_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(Settings(key=KEY)) as server:
        with pytest.raises(BadInput, match="OPENAI_API_KEY"):
            _ask(server, 1)
        assert server.counts()["requests"] == 0


def test_an_unknown_model_is_asked_for_once() -> None:
    with serving(Settings(key=KEY, model="gpt-5")) as server:
        with pytest.raises(BadInput, match=r"refuses.*does not exist"):
            _ask(server, 50)
        assert server.counts()["requests"] == 1


def test_an_endpoint_that_is_down_is_said_so_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = Endpoint("openai-compatible", "m", f"http://127.0.0.1:{port}/v1")
    with pytest.raises(BadInput, match="cannot be reached"):
        ask(questions(20), 20, endpoint, replace(QUICK, attempts=2), SILENT, "label")


def test_an_endpoint_that_dies_stops_the_run_and_keeps_what_came() -> None:
    with serving(Settings(key=KEY, latency_s=0.02)) as server:

        def some() -> Iterator[Question]:
            for number, question in enumerate(questions(400)):
                if number == 60:
                    server.process.kill()
                yield question

        with pytest.raises(BadInput, match=r"went down.*kept in the response cache"):
            ask(some(), 400, server.endpoint(), replace(QUICK, attempts=3), SILENT, "label")


@pytest.mark.parametrize("provider", PAID)
def test_the_cap_is_never_passed(provider: Provider, home: Path) -> None:
    cap = 0.02
    limits = replace(QUICK, run_dollars=cap, concurrency=32)
    with serving(Settings(key=KEY, fault_share=0.1, latency_s=0.01, faults=("429", "500", "malformed"))) as server:
        with pytest.raises(BadInput, match=r"stopped at this run's cap.*missing"):
            _ask(server, 2000, limits, provider)
        spent = server.counts()["dollars"]
        assert 0.5 * cap < spent <= cap
        kept = list_cache(home / FILE_NAME)[0]
        assert kept["dollars"] == pytest.approx(spent, rel=1e-6)
        kept_units = server.counts()["usable"]
        asked = _ask(server, 2 * kept_units, replace(limits, run_dollars=1.0), provider)
        assert asked.bill.cached + asked.bill.requests >= 2 * kept_units
        assert server.counts()["repeated"] == 0


def test_runs_that_share_a_purse_stop_together() -> None:
    limits = replace(QUICK, purse="shared", purse_dollars=0.01, run_dollars=1.0)
    with serving(Settings(key=KEY)) as server:
        with pytest.raises(BadInput, match="purse 'shared'"):
            _ask(server, 1000, limits)
        between = server.counts()["requests"]
        with pytest.raises(BadInput, match="purse 'shared'"):
            ask(questions(10, start=5000), 10, server.endpoint(), limits, SILENT, "label")
        assert server.counts()["requests"] == between
        other = ask(questions(10, start=5000), 10, server.endpoint(), replace(limits, purse="b"), SILENT, "label")
        assert len(other.answers) == 10
        assert server.counts()["dollars"] <= 0.01 + other.bill.cost_usd


def _long_question(blocks: int) -> Question:
    note = "" if blocks == 64 else f"{blocks} of 64 contexts"
    return Question(
        "latent:1", "s", "x" * (blocks * 100), Label, "v1",
        shorter=lambda: _long_question(blocks // 2) if blocks > 1 else None, note=note,
    )  # fmt: skip


def test_a_prompt_that_is_too_long_loses_contexts_and_says_so() -> None:
    with serving(Settings(key=KEY, context_bytes=4500)) as server:
        for provider in PROVIDERS:
            asked = ask([_long_question(64)], 1, server.endpoint(provider), QUICK, SILENT, "label")
            (answer,) = asked.answers.values()
            assert answer.value is not None
            assert answer.note == "32 of 64 contexts"
        before = server.counts()["requests"]
        small = server.endpoint(context_tokens=2000, max_output_tokens=500)
        asked = ask([_long_question(64)], 1, small, QUICK, SILENT, "label")
        assert [answer.note for answer in asked.answers.values()] == ["32 of 64 contexts"]
        assert server.counts()["requests"] == before + 1


def test_retry_after_holds_everyone_back() -> None:
    with serving(Settings(key=KEY, fault_share=0.3, faults=("429",), retry_after_s=0.2)) as server:
        asked = _ask(server, 40, replace(QUICK, attempts=20))
        counts = server.counts()
    assert all(answer.value for answer in asked.answers.values())
    # Without a common pause 16 workers would meet a new 429 far more often than once per answered request.
    assert counts["failed"]["429"] <= 40


RUN = """
import json, sys
from dataclasses import replace
from resources.llm.ask import ask
from resources.llm.endpoint import Endpoint
from tests.resources.llm.servers import QUICK, SILENT, questions
endpoint = Endpoint(**json.loads(sys.argv[1]))
done = ask(questions(150), 150, endpoint, replace(QUICK, concurrency=8), SILENT, "label")
print(len(done.answers), done.bill.cached)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "after"), [("openai", 20), ("openai", 110), ("anthropic", 70), ("openai-compatible", 70)]
)
def test_a_killed_run_repeats_no_answered_request(provider: Provider, after: int) -> None:
    faults = ("429", "500", "malformed", "wrong")
    with serving(Settings(key=KEY, latency_s=0.03, fault_share=0.25, retry_after_s=0.02, faults=faults)) as server:
        command = [sys.executable, "-c", RUN, json.dumps(asdict(server.endpoint(provider)))]
        process = subprocess.Popen(command, cwd=PROJECT, env=os.environ, stdout=subprocess.DEVNULL)
        wait_until(lambda: server.counts()["usable"] >= after, 60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        at_kill = server.counts()["usable"]
        done = subprocess.run(command, cwd=PROJECT, env=os.environ, capture_output=True, text=True, check=True)
        answered, cached = map(int, done.stdout.split())
        counts = server.counts()
    assert answered == 150
    assert after <= at_kill < 150
    # Only what was on the wire at the kill, at most one per worker, can be asked twice.
    assert counts["repeated"] <= 8
    assert cached >= at_kill - 8
    assert counts["usable"] <= 150 + 8


def test_no_key_reaches_any_file(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(Settings(key=KEY, fault_share=0.3, seed=1, timeout_s=4)) as server:
        _ask(server, 30)
    with serving(Settings(key="another")) as server, pytest.raises(BadInput):
        ask(questions(5, start=900), 5, server.endpoint(), QUICK, SILENT, "label")
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    assert all(KEY.encode() not in path.read_bytes() for path in files)
    out, err = capfd.readouterr()
    assert KEY not in out + err

"""The parts of asking on their own: keys, cache files, waiting, redaction, prices."""

import asyncio
import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from dagster_project.cli import main
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.llm.answers import Answer
from resources.llm.ask import Asked, Bill, ask
from resources.llm.cache import BUSY_S, FILE_NAME, Stored, connect, export_cache, import_cache, list_cache
from resources.llm.endpoint import Endpoint
from resources.llm.exchange import read
from resources.llm.failures import redacted
from resources.llm.limits import Limits
from resources.llm.pace import GAP_S, Pace, seconds_of, wait_asked
from resources.llm.prices import price_of
from resources.llm.question import Question, fitted
from tests.resources.llm.fault_server import Settings
from tests.resources.llm.servers import KEY, QUICK, SILENT, Label, questions, serving

ENDPOINT = Endpoint("openai", "gpt-5-mini")
QUESTION = Question("latent:1", "system", "user", Label, "v1")
LINE = json.dumps(
    asdict(
        Stored(
            "k", "openai", "gpt-5-mini", "", "v1", "{}", "{}", input_tokens=5, output_tokens=7, dollars=0.5, created=1.0
        )
    )
)
"""An answer as `lorascope cache export` writes it."""


class Other(Label):
    """The same answer with one more field."""

    extra: str


@pytest.mark.parametrize(
    "changed",
    [
        replace(QUESTION, system="x"), replace(QUESTION, user="x"), replace(QUESTION, answer=Other),
        replace(QUESTION, prompt_version="v2"), replace(QUESTION, sample=1),
    ],
)  # fmt: skip
def test_whatever_changes_an_answer_changes_the_key(changed: Question) -> None:
    assert changed.key(ENDPOINT, 0) != QUESTION.key(ENDPOINT, 0)


@pytest.mark.parametrize(
    "other",
    [
        replace(ENDPOINT, provider="anthropic"), replace(ENDPOINT, model="gpt-5"), replace(ENDPOINT, base_url="http://a"),
        replace(ENDPOINT, effort="high"), replace(ENDPOINT, max_output_tokens=99),
    ],
)  # fmt: skip
def test_whatever_changes_the_endpoint_changes_the_key(other: Endpoint) -> None:
    assert QUESTION.key(other, 0) != QUESTION.key(ENDPOINT, 0)


def test_what_does_not_change_an_answer_does_not_change_the_key() -> None:
    assert replace(QUESTION, id="latent:2", note="x").key(ENDPOINT, 0) == QUESTION.key(ENDPOINT, 0)
    assert QUESTION.key(replace(ENDPOINT, context_tokens=5), 0) == QUESTION.key(ENDPOINT, 0)
    assert QUESTION.key(ENDPOINT, 1) != QUESTION.key(ENDPOINT, 0)


def test_a_prompt_has_at_most_a_token_per_byte_and_the_vendors_frame_around_it() -> None:
    asked = replace(QUESTION, user="π" * 1000)
    assert asked.most_input_tokens == len("system") + 2000 + len(str(Label.model_json_schema())) + 600


def test_every_sample_and_attempt_has_a_seed_of_its_own() -> None:
    seeds = [replace(QUESTION, sample=sample).seed(attempt) for sample in range(3) for attempt in range(3)]
    assert min(seeds) >= 0 and len(set(seeds)) == 9


def _of_bytes(count: int) -> Question:
    """A question whose text, schema and all, has so many bytes; it takes 3.2 of them for a token."""
    empty = replace(QUESTION, user="")
    return replace(empty, user="x" * (count - len(empty.system + str(empty.schema))))


@pytest.mark.parametrize(("context", "output"), [(1600, 600), (2000, 1_000_000)], ids=["answer", "half the context"])
def test_a_prompt_shrinks_until_its_likely_tokens_leave_room_for_the_answer(context: int, output: int) -> None:
    endpoint = replace(ENDPOINT, context_tokens=context, max_output_tokens=output)
    full = replace(_of_bytes(3200), shorter=lambda: _of_bytes(1600))
    above = replace(_of_bytes(3204), shorter=lambda: full)
    assert (full.likely_input_tokens, above.likely_input_tokens) == (1000, 1001)
    assert fitted(full, endpoint) is full
    assert fitted(replace(_of_bytes(9000), shorter=lambda: above), endpoint) is full
    cannot_shrink = _of_bytes(3204)
    assert fitted(cannot_shrink, endpoint) is cannot_shrink


def test_an_exported_cache_answers_elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "answers.jsonl"
    with serving(Settings(key=KEY)) as server:
        ask(questions(7), 7, server.endpoint(), QUICK, SILENT, "label")
        assert export_cache(home / FILE_NAME, out) == 7
        monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "elsewhere"))
        assert import_cache(tmp_path / "elsewhere" / FILE_NAME, out) == 7
        assert import_cache(tmp_path / "elsewhere" / FILE_NAME, out) == 0
        asked = ask(questions(7), 7, server.endpoint(), QUICK, SILENT, "label")
        assert (asked.bill.cached, server.counts()["requests"]) == (7, 7)
    (row,) = list_cache(tmp_path / "elsewhere" / FILE_NAME)
    assert (row["provider"], row["model"], row["answers"]) == ("openai", "gpt-5-mini", 7)
    assert KEY not in out.read_text()


@pytest.mark.parametrize("damage", ['{"key": "a"}', LINE.replace('"response": "{}"', '"response": "{"'), LINE[:-9]])
def test_an_export_with_a_damaged_line_imports_nothing_of_the_others(tmp_path: Path, damage: str) -> None:
    (tmp_path / "bad.jsonl").write_text(f"{LINE}\n{damage}\n")
    with pytest.raises(BadInput, match=r"bad.jsonl:2: not a line of an exported response cache"):
        import_cache(tmp_path / FILE_NAME, tmp_path / "bad.jsonl")
    assert list_cache(tmp_path / FILE_NAME) == []
    (tmp_path / "good.jsonl").write_text(f"{LINE}\n{LINE}\n")
    assert [import_cache(tmp_path / FILE_NAME, tmp_path / "good.jsonl") for _ in range(2)] == [1, 0]


def test_where_nothing_was_asked_there_is_nothing_to_list_or_export(tmp_path: Path) -> None:
    assert list_cache(tmp_path / "none.sqlite") == []
    with pytest.raises(BadInput, match="nothing has been asked"):
        export_cache(tmp_path / "none.sqlite", tmp_path / "x")


def test_what_is_no_text_file_is_said_so_and_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache.gz").write_bytes(b"\x1f\x8b\x08\n")
    with pytest.raises(BadInput, match=r"cache\.gz: not UTF-8 text"):
        import_cache(tmp_path / FILE_NAME, tmp_path / "cache.gz")
    assert list_cache(tmp_path / FILE_NAME) == []


def test_a_file_that_is_no_cache_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("something else, and longer than a header of SQLite is" * 3)
    with pytest.raises(BadInput, match=r"llm_cache\.sqlite is no response cache .*: move it away") as kept:
        list_cache(tmp_path / FILE_NAME)
    assert (tmp_path / FILE_NAME).read_text().startswith("something else")
    opened = {file.path for file in psutil.Process().open_files()}
    assert str(tmp_path / FILE_NAME) not in opened, f"it is still open beside {kept.value}"


def test_a_cache_that_lost_its_end_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with closing(connect(path)) as connection:
        connection.execute("create table other(x)")
    cut = path.read_bytes()[:5000]
    path.write_bytes(cut)
    with pytest.raises(BadInput, match=r"llm_cache\.sqlite is no response cache .*malformed.*: move it away"):
        list_cache(path)
    assert path.read_bytes() == cut


def test_only_a_cache_that_others_use_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        connect(tmp_path / FILE_NAME)
    assert time.monotonic() - began < BUSY_S / 4


def test_an_export_into_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    connect(tmp_path / FILE_NAME).close()
    with pytest.raises(BadInput, match=r"none/x cannot be written \(No such file or directory\)"):
        export_cache(tmp_path / FILE_NAME, tmp_path / "none" / "x")


@pytest.mark.parametrize("way", ["export", "import"])
def test_a_folder_is_no_file_to_exchange_answers_by(tmp_path: Path, way: str) -> None:
    done = CliRunner().invoke(main, ["cache", way, str(tmp_path)])
    assert done.exit_code == 2 and f"'{tmp_path}' is a directory." in done.output


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3s", 3723), ("1.5", 1.5), ("soon", 0), ("", 0)],
)
def test_waits_are_read_as_the_vendors_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


def test_a_moment_is_read_as_seconds_from_now() -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat().replace("+00:00", "Z")
    assert seconds_of(soon) == pytest.approx(30, abs=1)


def test_only_a_used_up_limit_asks_to_wait() -> None:
    assert wait_asked({"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "9s"}) == 0
    assert wait_asked({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "9s"}) == 9
    assert wait_asked({}) == 0


@pytest.mark.parametrize(
    "text",
    [f"bad key {KEY} given", "wrong key: sk-proj-abcdefgh1234", "Authorization: Bearer abc.def"],
)
def test_messages_lose_their_keys(text: str) -> None:
    told = redacted(text)
    assert "[key]" in told
    assert not any(secret in told for secret in (KEY, "abcdefgh1234", "abc.def"))


def test_requests_leave_one_by_one_and_nobody_during_a_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept, pace = 100.0, [], Pace()

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(round(seconds, 6))
        now += seconds if slept[-1] > GAP_S else 0.0  # the turns are asked for at one moment

    monkeypatch.setattr("resources.llm.pace.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("resources.llm.pace.asyncio", SimpleNamespace(sleep=sleep))
    for _ in range(2):
        asyncio.run(pace.turn())
    asyncio.run(pace.wait())
    assert slept == [0.0, GAP_S]
    pace.hold(6.0)
    asyncio.run(pace.wait())
    asyncio.run(pace.turn())  # long after the last one
    assert slept[2:] == [6.0, 0.0]


def test_batches_cost_half() -> None:
    live, batch = price_of(ENDPOINT, "live"), price_of(ENDPOINT, "batch")
    assert (live.input, live.output) == pytest.approx((0.25, 2.0))
    assert (batch.input, batch.output) == pytest.approx((0.125, 1.0))
    assert price_of(Endpoint("openai-compatible", "x", "http://a"), "live").output == 0


def test_a_model_without_a_price_is_refused() -> None:
    with pytest.raises(BadInput, match="no price is known of openai/nothing-9"):
        price_of(Endpoint("openai", "nothing-9"), "live")


def test_the_likely_tokens_and_the_price_grow_with_the_prompt() -> None:
    (question,) = questions(1, size=3200)
    tokens = question.likely_input_tokens
    assert tokens == pytest.approx(1100, rel=0.2)
    assert price_of(ENDPOINT, "live").dollars(tokens, 800) == pytest.approx(tokens * 0.25e-6 + 800 * 2e-6)


def test_limits_come_from_the_compute_section() -> None:
    limits = Limits.of(ComputeConfig(llm_concurrency=3, llm_mode="batch", llm_run_dollars=1.5, llm_purse="a"))
    assert (limits.concurrency, limits.mode, limits.run_dollars, limits.purse) == (3, "batch", 1.5, "a")


def _journal_mode(path: Path) -> str:
    with closing(connect(path)) as connection:
        return connection.execute("pragma journal_mode").fetchone()[0]


@pytest.mark.parametrize(("file_system", "mode"), [("ext4", "wal"), ("nfs4", "delete"), ("lustre", "delete")])
def test_a_new_cache_can_be_opened_by_several_runs_at_the_same_moment_and_has_no_log_that_machines_cannot_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_system: str, mode: str
) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="xfs"), SimpleNamespace(mountpoint=tmp_path, fstype=file_system)]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: mounts)
    for number in range(10):
        with ThreadPoolExecutor(8) as runs:
            assert set(runs.map(_journal_mode, [tmp_path / f"{number}.sqlite"] * 8)) == {mode}


def build_answer(number: int, failure: str = "", *, lost: bool = False) -> Answer:
    return Answer(str(number), 0, "", None if failure else Settled(), failure, cached=False, lost=lost)


class Settled(BaseModel):
    """Any answer."""


def test_questions_that_were_lost_on_the_way_are_not_taken_for_answered() -> None:
    answers = [build_answer(0), build_answer(1, "busy", lost=True), build_answer(2, "no JSON")]
    asked = Asked({(one.id, 0): one for one in answers}, Bill(3), 0.0)
    with pytest.raises(BadInput, match=r"^1 of 3 questions were left without an answer \(busy\): run again"):
        asked.check_complete()
    some = replace(asked, answers={("0", 0): answers[0], ("2", 0): answers[2]})
    some.check_usable()
    with pytest.raises(BadInput, match=r"^none of 1 answers can be used \(no JSON\): ask another model"):
        replace(asked, answers={("2", 0): answers[2]}).check_usable()


def test_answers_that_were_cut_ask_for_longer_ones_not_for_another_model() -> None:
    response = json.dumps({"parts": [{"part_kind": "text", "content": "{"}], "finish_reason": "length"})
    _, cut = read(Question("q", "", "", Settled, "v"), response)
    asked = Asked({("0", 0): build_answer(0, f"{cut} (3 answers)")}, Bill(3), 0.0)
    with pytest.raises(
        BadInput, match=r"token limit \(3 answers\)\): raise max_output_tokens of the section that asks$"
    ):
        asked.check_usable()


@pytest.mark.parametrize("text", ['{"a": 1}', '```json\n{"a": 1}\n```', ' ```\n{"a": 1}\n``` \n'])
def test_an_answer_may_stand_in_a_fence(text: str) -> None:
    class Number(BaseModel):
        a: int

    response = json.dumps({"parts": [{"part_kind": "text", "content": text}], "finish_reason": "stop"})
    assert read(Question("q", "", "", Number, "v"), response) == (Number(a=1), "")

"""A training that is stopped goes on from its last checkpoint and ends with the same bytes."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from assets.adapter.artifact import CURVE, LoraCheckpoint, read_curve
from assets.adapter.checkpoint import Checkpoints
from assets.adapter.config import FullFinetuneConfig, LoraConfig
from assets.adapter.loop import _check_finite
from assets.adapter.parallel import Processes
from assets.adapter.train import train_lora
from resources.adapters import WEIGHTS
from resources.errors import BadInput, Interrupted
from resources.parts import drop_damaged
from resources.progress import Progress
from tests.assets.adapter.conftest import COMPUTE, World
from tests.faults.damage import flip

LORA = LoraConfig(epochs=3, batch_size=4)
"""Nine steps."""
OFTEN = COMPUTE.model_copy(update={"checkpoint_steps": 3})
ALONE = Processes(0, 1, torch.device("cpu"))
ROW = {"step": 1.0, "loss": 1.0}
SHARD, STATE = "shard-00000.safetensors", "state.json"


class Stopped(Exception):
    """Stands for whatever ends a process."""


def after_one_step() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimiser.step()
    return {"weight": weight}, optimiser


def stop_after(world: World, name: str, config: LoraConfig, step: int) -> None:
    """Run `config` into the scratch folder of `name` until `step` has been reported, then die."""

    def emit(line: str) -> None:
        if line.startswith(f"train {step}/"):
            raise Stopped

    out, scratch = world.folders(name)
    out.rmdir()
    (world.folder / "dead").mkdir()
    with pytest.raises(Stopped):
        train_lora(
            model=world.model,
            lora=config,
            s1k_dataset=world.dataset,
            out=world.folder / "dead",
            scratch=scratch,
            progress=Progress(emit, 0),
            compute=OFTEN,
        )


def test_a_stopped_training_ends_with_the_same_bytes(world: World) -> None:
    whole, _ = world.lora("whole", LORA)
    stop_after(world, "resumed", LORA, step=8)
    world.lines.clear()
    resumed, metrics = world.lora("resumed", LORA, OFTEN)
    assert world.lines[0] == "going on after step 6 of 9"
    assert (resumed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert (resumed / CURVE).read_bytes() == (whole / CURVE).read_bytes()
    assert metrics.steps == 9


def test_a_warning_of_the_walltimes_end_saves_the_step_it_finds_and_repeats_none(world: World) -> None:
    whole, _ = world.lora("whole", LORA)
    out, scratch = world.folders("resumed")
    lines: list[str] = []
    warned = Progress(lines.append, 0, stop=lambda: any(line.startswith("train 5/") for line in lines))
    with pytest.raises(Interrupted, match="saved after step 5 of 9"):
        train_lora(
            model=world.model,
            lora=LORA,
            s1k_dataset=world.dataset,
            out=out,
            scratch=scratch,
            progress=warned,
            compute=COMPUTE,
        )
    out.rmdir()
    world.lines.clear()
    resumed, _ = world.lora("resumed", LORA)
    assert world.lines[0] == "going on after step 5 of 9"
    assert (resumed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.parametrize("cheap", [True, False])
def test_a_warning_at_the_last_step_is_too_late_and_what_costs_too_much_is_not_saved(
    world: World, monkeypatch: pytest.MonkeyPatch, cheap: bool
) -> None:
    monkeypatch.setattr(Checkpoints, "worth_while", lambda _: cheap)
    out, scratch = world.folders("whole")
    lines: list[str] = []
    warned = Progress(lines.append, 0, stop=lambda: any(line.startswith("train 9/") for line in lines))
    knobs = {"model": world.model, "lora": LORA, "s1k_dataset": world.dataset}
    assert train_lora(out=out, scratch=scratch, progress=warned, compute=OFTEN, **knobs).steps == 9
    assert [path.name for path in scratch.glob("checkpoints/*")] == (["step-00000006"] if cheap else [])


def test_only_the_newest_checkpoint_is_kept_and_a_half_written_one_is_never_used(world: World) -> None:
    stop_after(world, "resumed", LORA, step=8)
    checkpoints = world.folder / "resumed-scratch" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000006"]
    (checkpoints / "step-00000009.part").mkdir()
    world.lora("resumed", LORA, OFTEN)
    assert "going on after step 6 of 9" in world.lines


def test_a_checkpoint_is_on_the_disk_before_the_last_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, ALONE, 1, print)
    checkpoints.save([ROW], *after_one_step())
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda file: synced.add(os.fstat(file).st_ino))
    checkpoints.save([ROW, ROW], *after_one_step())
    assert {(tmp_path / "step-00000002" / name).stat().st_ino for name in (SHARD, STATE)} <= synced


def test_checkpoints_that_take_long_take_a_tenth_of_the_time_and_short_ones_are_never_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    parameters, optimiser = after_one_step()

    class SlowDisk(Processes):
        def wait(self) -> None:
            nonlocal now
            now += takes / 3  # three times in a save

    for takes in (9.0, 60.0):
        checkpoints = Checkpoints(tmp_path, SlowDisk(0, 1, ALONE.device), 1, [].append)
        assert checkpoints.worth_while()  # the first one, of which nobody knows how long it takes
        checkpoints.save([ROW], parameters, optimiser)
        now += 599
        assert checkpoints.worth_while() == (takes < 10)
        now += 1
        assert checkpoints.worth_while()


def test_a_checkpoint_of_another_number_of_shards_is_named_before_the_training_begins_anew(tmp_path: Path) -> None:
    parameters, optimiser = after_one_step()
    Checkpoints(tmp_path, ALONE, 2, [].append).save([ROW], parameters, optimiser)
    said: list[str] = []
    assert Checkpoints(tmp_path, ALONE, 1, said.append).resume(parameters, optimiser) == []
    assert said == [
        "the checkpoint after step 1 is divided among 2 processes and this training among 1",
        "the training begins anew",
    ]
    assert Checkpoints(tmp_path, ALONE, 2, said.append).resume(parameters, optimiser) == [ROW]


def test_a_training_begun_anew_saves_over_the_checkpoint_that_it_could_not_take_up(tmp_path: Path) -> None:
    parameters, optimiser = after_one_step()
    Checkpoints(tmp_path, ALONE, 2, [].append).save([ROW], parameters, optimiser)
    anew = Checkpoints(tmp_path, ALONE, 1, [].append)
    assert anew.resume(parameters, optimiser) == []
    anew.save([ROW], parameters, optimiser)
    assert anew.resume(parameters, optimiser) == [ROW]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_of_processes_that_hold_everything_the_first_one_alone_writes(tmp_path: Path) -> None:
    class Second(Processes):
        def wait(self) -> None:
            """The first one is where this one is."""

    theirs = tmp_path / "step-00000001.part" / SHARD
    theirs.parent.mkdir()
    theirs.write_text("of the first process")
    Checkpoints(tmp_path, Second(1, 2, ALONE.device), 1, print).save([ROW], *after_one_step())
    assert list(tmp_path.rglob("*")) == [theirs.parent, theirs]
    assert theirs.read_text() == "of the first process"


def test_a_save_that_a_kill_cut_off_hinders_no_later_one_of_that_step_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.part").mkdir()
    (tmp_path / "step-00000001.part" / "shard-00007.safetensors").touch()
    Checkpoints(tmp_path, ALONE, 1, print).save([ROW], *after_one_step())
    assert {path.name for path in tmp_path.glob("*/[!.]*")} == {SHARD, STATE}


@pytest.mark.parametrize(("name", "size"), [(SHARD, 20), (SHARD, 0), (STATE, 20), (STATE, 0)])
def test_a_damaged_checkpoint_is_named_before_the_training_begins_anew(tmp_path: Path, name: str, size: int) -> None:
    parameters, optimiser = after_one_step()
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path, ALONE, 1, said.append)
    checkpoints.save([ROW], parameters, optimiser)
    os.truncate(tmp_path / "step-00000001" / name, size)
    assert checkpoints.resume(parameters, optimiser) == []
    damage, anew = said
    assert damage.startswith(f"the checkpoint {tmp_path / 'step-00000001'} is damaged (")
    assert anew == "the training begins anew"


def test_a_turned_bit_of_a_checkpoints_numbers_is_seen_before_a_job_takes_it_up(tmp_path: Path) -> None:
    parameters, optimiser = after_one_step()
    Checkpoints(tmp_path, ALONE, 1, [].append).save([ROW], parameters, optimiser)
    harmed = tmp_path / "step-00000001" / STATE
    flip(harmed, random.Random(16))
    assert drop_damaged(tmp_path) == [harmed]
    assert Checkpoints(tmp_path, ALONE, 1, [].append).resume(parameters, optimiser) == []


def test_a_turned_bit_anywhere_in_a_checkpoints_tensors_is_seen(tmp_path: Path) -> None:
    parameters, optimiser = after_one_step()
    Checkpoints(tmp_path, ALONE, 1, [].append).save([ROW], parameters, optimiser)
    shard = tmp_path / "step-00000001" / SHARD
    sound = shard.read_bytes()
    header = 8 + int.from_bytes(sound[:8], "little")
    for place in range(header, len(sound)):
        shard.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        said: list[str] = []
        assert Checkpoints(tmp_path, ALONE, 1, said.append).resume(parameters, optimiser) == []
        assert said[0].endswith(f"is damaged ({SHARD} is not what was written)")
    shard.write_bytes(sound)
    assert Checkpoints(tmp_path, ALONE, 1, [].append).resume(parameters, optimiser) == [ROW]


def test_a_checkpoint_that_one_process_cannot_read_is_taken_up_by_none(tmp_path: Path) -> None:
    class BesideOneThatCannot(Processes):
        def summed(self, value: float) -> float:
            return value + 1.0

    parameters, optimiser = after_one_step()
    Checkpoints(tmp_path, ALONE, 1, [].append).save([ROW], parameters, optimiser)
    said: list[str] = []
    beside = BesideOneThatCannot(0, 1, ALONE.device)
    assert Checkpoints(tmp_path, beside, 1, said.append).resume(parameters, optimiser) == []
    assert said == [
        f"another process cannot use its share of the checkpoint {tmp_path / 'step-00000001'}",
        "the training begins anew",
    ]


def test_a_training_with_a_damaged_checkpoint_ends_with_the_same_bytes(world: World) -> None:
    whole, _ = world.lora("whole", LORA)
    stop_after(world, "resumed", LORA, step=8)
    os.truncate(world.folder / "resumed-scratch" / "checkpoints" / "step-00000006" / SHARD, 500)
    world.lines.clear()
    resumed, metrics = world.lora("resumed", LORA, OFTEN)
    assert world.lines[1] == "the training begins anew"
    assert (resumed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert metrics.steps == 9


def test_a_full_finetune_resumes_with_the_same_bytes(world: World) -> None:
    config = FullFinetuneConfig(epochs=2, batch_size=4, learning_rate=1e-3)
    whole, _ = world.full("whole", config)
    world.full("first", config.model_copy(update={"epochs": 2}), OFTEN)
    (world.folder / "first-scratch").rename(world.folder / "again-scratch")
    world.lines.clear()
    again, _ = world.full("again", config, OFTEN)
    assert world.lines[0] == "going on after step 3 of 6"
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_training_that_is_told_to_stop_saves_its_last_step_first(world: World) -> None:
    out, scratch = world.folders("told")
    arguments = {"model": world.model, "lora": LORA, "s1k_dataset": world.dataset, "compute": COMPUTE}
    seen: list[str] = []
    telling = Progress(seen.append, 0, stop=lambda: len(seen) >= 5)
    with pytest.raises(Interrupted, match="step 5 of 9"):
        train_lora(out=out, scratch=scratch, progress=telling, **arguments)
    assert [path.name for path in (scratch / "checkpoints").iterdir()] == ["step-00000005"]


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_next_one_goes_on_from(world: World) -> None:
    config = LORA.model_copy(update={"epochs": 20})
    jobs = {}
    for name in ("killed", "whole"):
        out, scratch = world.folders(name)
        folders = {"s1k_dataset": str(world.dataset), "out": str(out), "scratch": str(scratch)}
        settings = {"model": world.model.model_dump(), "config": config.model_dump(), "compute": OFTEN.model_dump()}
        jobs[name] = {"kind": "lora", **folders, **settings}
    plan = world.folder / "plan.json"
    command = [sys.executable, "-m", "tests.assets.adapter.ranked", str(plan)]
    place = {"cwd": Path(__file__).parents[3], "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    plan.write_text(json.dumps([jobs["killed"]]))
    process = subprocess.Popen(command, **place)
    checkpoints = world.folder / "killed-scratch" / "checkpoints"
    while process.poll() is None and not list(checkpoints.glob("step-000000[1-9]*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (world.folder / "killed" / WEIGHTS).exists()
    plan.write_text(json.dumps(list(jobs.values())))
    subprocess.run(command, check=True, **place)
    killed, whole = world.folder / "killed", world.folder / "whole"
    assert (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    curve = read_curve(killed)
    assert curve is not None
    assert curve.num_rows == 60


def test_a_loss_that_is_no_number_stops_with_step_and_rollouts_and_keeps_the_checkpoint(world: World) -> None:
    config = LORA.model_copy(update={"learning_rate": 1.0, "max_grad_norm": 0.0, "alpha": 1e15})
    with pytest.raises(BadInput, match=r"step \d+: loss .*; rollouts \[\d+, \d+, \d+, \d+\]"):
        world.lora("diverges", config, COMPUTE.model_copy(update={"checkpoint_steps": 1}))
    assert not (world.folder / "diverges" / WEIGHTS).exists()
    kept = list((world.folder / "diverges-scratch" / "checkpoints").glob("step-*"))
    assert len(kept) == 1


def test_a_last_step_that_leaves_weights_that_are_no_numbers_is_refused(world: World) -> None:
    """B begins at 0, so A's first gradient is 0, and AdamW divides it by an epsilon that float32 rounds to 0."""
    config = LoraConfig(epochs=1, batch_size=12, warmup_ratio=0.0, epsilon=1e-300)
    with pytest.raises(BadInput, match=r"step 1, the last, left NaN or infinity in .*lora_A.*lower the learning rate"):
        world.lora("diverges", config)
    assert not (world.folder / "diverges" / WEIGHTS).exists()


def test_a_single_weight_that_is_no_number_is_found() -> None:
    weights = {"whole": torch.zeros(2), "torn": torch.tensor([0.0, math.nan])}
    with pytest.raises(BadInput, match="step 9, the last, left NaN or infinity in torn: "):
        _check_finite(SimpleNamespace(parameters=weights, processes=ALONE), 9)  # pyright: ignore[reportArgumentType]


def test_the_artifact_tells_each_components_norms(world: World) -> None:
    out, metrics = world.lora("ours", LORA)
    found = LoraCheckpoint.open(out)
    rows = found.table().to_pylist()
    assert [row["component"] for row in rows][:3] == ["L0.q_proj", "L0.k_proj", "L0.v_proj"]
    assert rows == metrics.component_norms
    component = found.adapter.components[0]
    a, b = found.adapter.A[component], found.adapter.B[component]
    assert (rows[0]["norm_a"], rows[0]["norm_b"]) == pytest.approx((float(a.norm()), float(b.norm())), rel=1e-5)
    assert rows[0]["norm_update"] == pytest.approx(float((16 * b @ a).norm()), rel=1e-5)

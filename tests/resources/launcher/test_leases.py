"""GPU indices are never given out twice and never forgotten."""

import time
from pathlib import Path

import pytest

from resources.errors import BadInput
from resources.launcher.deployment import Deployment
from resources.launcher.fit import check_fits
from resources.launcher.leases import take
from resources.launcher.protocol import Busy, Order
from resources.launcher.rundir import RunDir
from tests.resources.launcher.conftest import build_job


def test_small_jobs_share_a_node_and_a_large_one_is_told_who_is_in_its_way(tmp_path: Path) -> None:
    with take(tmp_path, 8, 3, "sae") as first, take(tmp_path, 8, 4, "capture") as second:
        assert (first.indices, second.indices) == ((0, 1, 2), (3, 4, 5, 6))
        with pytest.raises(Busy, match="2 GPUs wanted, 1 of 8 free; held by capture, sae"):
            take(tmp_path, 8, 2, "ablation")
        # A refused job keeps nothing: the one free GPU can still be had.
        with take(tmp_path, 8, 1, "ablation") as third:
            assert third.indices == (7,)
    with take(tmp_path, 8, 8, "lora") as all_of_them:
        assert all_of_them.indices == tuple(range(8))


def test_the_job_sees_its_gpus_and_holds_them_until_its_last_process_is_gone(tmp_path: Path, local: Deployment) -> None:
    launcher = local.launcher()
    runs = [RunDir(tmp_path / name) for name in ("a", "b")]
    handles = []
    for run, count in zip(runs, (5, 3), strict=True):
        run.path.mkdir()
        command = ("/bin/sh", "-c", "echo $CUDA_VISIBLE_DEVICES; sleep 60 & sleep 60")
        handles.append(launcher.submit(Order(command, {}, run.path, run.path.name, gpus=count)))
    with pytest.raises(Busy, match="held by a, b"):
        take(local.lease_folder, 8, 1, "c")
    for run, shown in zip(runs, ("0,1,2,3,4\n", "5,6,7\n"), strict=True):
        deadline = time.monotonic() + 10
        while not run.stdout.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert run.stdout.read_text() == shown
    for handle in handles:
        launcher.cancel(handle)
    with take(local.lease_folder, 8, 8, "c") as lease:
        assert len(lease.indices) == 8


def test_without_gpus_a_job_sees_none(tmp_path: Path, local: Deployment) -> None:
    launcher = local.launcher()
    handle = launcher.submit(Order(("/bin/sh", "-c", 'echo "<$CUDA_VISIBLE_DEVICES>"'), {}, tmp_path, "cpu"))
    launcher.release(handle)
    assert (tmp_path / "stdout.log").read_text() == "<>\n"


def test_more_gpus_than_the_node_has_are_refused_before_anything_waits(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="notes needs 8 GPUs and a node of this deployment has 0"):
        check_fits(build_job(tmp_path, "succeed", gpus=8), Deployment(gpus=0))

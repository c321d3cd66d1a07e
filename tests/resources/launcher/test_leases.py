"""GPU indices are never given out twice and never forgotten."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.errors import BadInput
from resources.launcher import devices
from resources.launcher.deployment import Deployment
from resources.launcher.fit import check_fits
from resources.launcher.leases import take
from resources.launcher.protocol import Busy, Order
from resources.launcher.rundir import RunDir
from resources.sources import PROJECT
from tests.other_users import acting_as
from tests.resources.launcher.conftest import build_job


def test_small_jobs_share_a_node_and_a_large_one_is_told_who_is_in_its_way(tmp_path: Path) -> None:
    with take(tmp_path, 8, 3, "sae") as first, take(tmp_path, 8, 4, "capture") as second:
        assert (first.devices, second.devices) == (tuple("012"), tuple("3456"))
        with pytest.raises(Busy, match="2 GPUs wanted, 1 of 8 free; held by capture, sae"):
            take(tmp_path, 8, 2, "ablation")
        # A refused job keeps nothing: the one free GPU can still be had.
        with take(tmp_path, 8, 1, "ablation") as third:
            assert third.devices == ("7",)
    with take(tmp_path, 8, 8, "lora") as all_of_them:
        assert all_of_them.devices == tuple("01234567")


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
        assert len(lease.devices) == 8


def test_without_gpus_a_job_sees_none(tmp_path: Path, local: Deployment) -> None:
    launcher = local.launcher()
    handle = launcher.submit(Order(("/bin/sh", "-c", 'echo "<$CUDA_VISIBLE_DEVICES>"'), {}, tmp_path, "cpu"))
    launcher.release(handle)
    assert (tmp_path / "stdout.log").read_text() == "<>\n"


def test_more_gpus_than_the_node_has_are_refused_before_anything_waits(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="notes needs GPUs, up to 8, and a node of this deployment has 0"):
        check_fits(build_job(tmp_path, "succeed", gpus=8), Deployment(gpus=0))


def test_a_job_gets_gpus_of_those_that_its_user_left_visible(
    tmp_path: Path, local: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6, 7")
    launcher = local.launcher()
    handle = launcher.submit(Order(("/bin/sh", "-c", "echo $CUDA_VISIBLE_DEVICES"), {}, tmp_path, "job", gpus=2))
    launcher.release(handle)
    assert (tmp_path / "stdout.log").read_text() == "6,7\n"
    with pytest.raises(BadInput, match=r"lora needs 4 GPUs and may use 2 \(6, 7\).*CUDA_VISIBLE_DEVICES"):
        take(local.lease_folder, 8, 4, "lora")


def test_users_with_different_settings_never_get_the_same_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    with take(tmp_path, 8, 1, "theirs") as theirs:
        assert theirs.devices == ("2",)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
        with pytest.raises(Busy, match="1 GPUs wanted, 0 of 1 free; held by theirs"):
            take(tmp_path, 8, 1, "ours")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        with take(tmp_path, 8, 7, "ours") as ours:
            assert ours.devices == tuple("0134567")


def test_a_gpu_named_by_its_uuid_is_the_one_that_others_name_by_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaaa-11'\necho '1, GPU-bbbb-22'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb,MIG-cccc/1/0")
    with take(tmp_path / "leases", 8, 2, "theirs") as theirs:
        assert theirs.devices == ("GPU-bbbb", "MIG-cccc/1/0")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with pytest.raises(Busy, match="held by theirs"):
            take(tmp_path / "leases", 8, 1, "ours")
    assert sorted(file.name for file in (tmp_path / "leases").iterdir()) == ["gpu-1", "gpu-MIG-cccc-1-0"]


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 8), ("6,7", 2), ("", 0), ("-1", 0), ("3,-1,4", 1), ("0,0,1", 2), ("NoDevFiles", 0)]
)
def test_the_gpus_of_a_node_are_those_that_cuda_would_show(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int
) -> None:
    monkeypatch.setattr(devices, "_built_in", lambda: 8)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Deployment().gpus == count


@pytest.mark.parametrize(
    ("shown", "gib"),
    [("143771", 139.7), ("143771\\n81559", 78.9), ("[N/A]", 139.0), ("NVIDIA-SMI has failed, as ever", 139.0)],
)
def test_jobs_must_fit_the_smallest_gpu_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, gib: float
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{shown}\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Deployment().gpu_gib == pytest.approx(gib, abs=0.05)
    assert Deployment(gpu_memory_gib=40).gpu_gib == 40


def test_a_variable_makes_no_gpus_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_built_in", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert Deployment().gpus == 0


def test_users_with_temporary_folders_of_their_own_lease_in_the_same_place(tmp_path: Path) -> None:
    """Slurm's and systemd's private TMPDIR would give each user the first GPU."""
    command = [
        sys.executable,
        "-c",
        "from resources.launcher.deployment import Deployment as d; print(d().lease_folder)",
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{Deployment().lease_folder}\n"


def test_two_users_of_one_machine_share_its_gpus(public: Path) -> None:
    folder = public / "leases"
    with acting_as(1001):
        first = take(folder, 2, 1, "first")
    with acting_as(1002):
        with take(folder, 2, 1, "second") as second, pytest.raises(Busy, match="held by first, second"):
            assert second.devices == ("1",)
            take(folder, 2, 1, "third")
        with first:
            pass
        with take(folder, 2, 2, "third") as third:
            assert third.devices == ("0", "1")


def test_who_holds_a_gpu_now_is_named_and_not_who_held_it_before(tmp_path: Path) -> None:
    folder = tmp_path / "machine" / "leases"
    with take(folder, 1, 1, "full_finetune_checkpoint"):
        pass
    with take(folder, 1, 1, "sae"), pytest.raises(Busy, match=r"held by sae$"):
        take(folder, 1, 1, "ablation")


def test_a_job_without_gpus_needs_no_folder_of_leases(tmp_path: Path) -> None:
    with take(tmp_path / "leases", 8, 0, "dataset") as lease:
        assert (lease.devices, lease.descriptors) == ((), ())
    assert not (tmp_path / "leases").exists()


def test_a_full_disk_under_the_leases_costs_the_holders_name_and_no_job(small_disk: Path) -> None:
    """A full folder of temporary files: the error named the home's disk, which had room."""
    with (small_disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    with take(small_disk, 1, 1, "first"), pytest.raises(Busy, match="1 GPUs wanted, 0 of 1 free; held by another run"):
        take(small_disk, 1, 1, "second")
    with take(small_disk, 1, 1, "third") as lease:
        assert lease.devices == ("0",)


def test_leases_that_another_user_keeps_closed_are_named_with_what_helps(public: Path) -> None:
    folder = public / "leases"
    folder.mkdir(mode=0o700)
    with acting_as(1002), pytest.raises(BadInput, match=r"leases.*chmod 1777.*lease_folder.*compute\.yaml"):
        take(folder, 2, 1, "second")


def test_a_refused_job_keeps_no_file_open_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "gpu-1").symlink_to(tmp_path / "precious")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="gpu-1"):
        take(tmp_path, 2, 2, "job")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert (tmp_path / "precious").read_text() == "kept"

"""How a worker turns a job into a call."""

import subprocess
import sys
from pathlib import Path

import pytest

from resources.job import JobFailure
from resources.launcher.rundir import FAILURE, RESULT, RunDir
from resources.progress import Progress
from resources.worker import FAILED, INTERRUPTED, arguments_of, check_shape, columns_of
from tests.resources.launcher import verbs
from tests.resources.launcher.conftest import build_job

SILENT = Progress([].append)


def test_sections_become_their_config_class_and_inputs_their_folders(tmp_path: Path) -> None:
    job = build_job(tmp_path, "join_input", play={"text": "x"}).model_copy(update={"inputs": {"notes": tmp_path / "n"}})
    assert arguments_of(job, verbs.join_input, SILENT) == {
        "play": verbs.PlayConfig(text="x"),
        "notes": tmp_path / "n",
        "out": tmp_path / "out",
    }


def test_a_parameter_the_job_lacks_and_an_input_the_call_ignores_are_both_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"takes \['notes'\]"):
        arguments_of(build_job(tmp_path, "join_input"), verbs.join_input, SILENT)
    surplus = build_job(tmp_path, "succeed").model_copy(update={"inputs": {"notes": tmp_path}})
    with pytest.raises(TypeError, match=r"not \['notes'\]"):
        arguments_of(surplus, verbs.succeed, SILENT)


def test_columns_come_from_the_artifacts_own_table(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("hello")
    columns = columns_of(build_job(tmp_path, "succeed"))
    assert [(column.name, column.type) for column in columns] == [("text", "string"), ("length", "int32")]


def test_fewer_processes_or_gpus_than_were_asked_for_end_the_job_with_both_numbers(tmp_path: Path) -> None:
    job = build_job(tmp_path, "succeed", gpus=8, processes=8)
    check_shape(job, 8, "0,1,2,3,4,5,6,7")
    with pytest.raises(RuntimeError, match="8 processes were asked for, 1 started"):
        check_shape(job, 1, None)
    with pytest.raises(RuntimeError, match="8 GPUs were asked for, this process sees '0,1'"):
        check_shape(job, 8, "0,1")
    check_shape(build_job(tmp_path, "succeed"), 1, "")


def test_a_worker_imports_no_dagster_and_no_torch() -> None:
    code = "import sys, resources.worker, dagster_pipes; print({'dagster', 'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_artifact_is_on_the_disk_before_the_result_that_speaks_of_it(tmp_path: Path) -> None:
    """Else a power cut leaves the result of an artifact whose files are empty, which the next run takes up."""
    job = build_job(tmp_path, "succeed")
    RunDir(tmp_path / "run").prepare(job)
    spy = (
        "import os, sys; from resources.worker import main\n"
        "os.fsync = lambda file: print(os.readlink(f'/proc/self/fd/{file}'))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", spy, str(tmp_path / "run")]
    synced = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert synced[:2] == [str(job.out / "note.txt"), str(job.out)]
    assert RESULT in synced[-1]


def test_a_process_that_fails_has_told_it_and_ends_whatever_python_would_wait_for(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.prepare(build_job(tmp_path, "fail_and_never_end"))
    command = [sys.executable, "-m", "resources.worker", str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == FAILED
    assert "one process alone has failed" in done.stderr
    assert JobFailure.model_validate_json((run.path / FAILURE).read_bytes()).message == "one process alone has failed"


def test_a_library_that_hides_the_end_that_slurm_gave_a_job_does_not_make_an_error_of_it(tmp_path: Path) -> None:
    """As transformers, when SIGTERM meets one of its imports."""
    job = build_job(tmp_path, "hide_an_interrupt")
    run = RunDir(tmp_path / "run")
    run.prepare(job)
    run.stop.touch()
    command = [sys.executable, "-m", "resources.worker", str(run.path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == INTERRUPTED
    failure = run.failure()
    assert failure is not None and failure.kind == "interrupted"

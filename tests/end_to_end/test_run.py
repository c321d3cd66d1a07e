"""The whole paper in miniature: real assets, exact cache, clear words."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.paper.asset import experiment_comparison
from dagster_project.rooms import STAGES
from resources.home import Home
from resources.manifest import read_manifest
from tests.end_to_end.conftest import Installation
from tests.sensors.ticks import tick, unsynced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ASSETS = [stage.asset for stage in STAGES]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of the store with its size and modification time."""
    files = [
        path for path in folder.rglob("*") if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    ]
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_every_asset_is_a_hit_afterwards_and_a_second_run_starts_no_worker_and_writes_no_byte(
    tiny: Installation,
) -> None:
    assert {line["cache"] for line in tiny.plan("tiny").values()} == {"hit"}
    before = snapshot(tiny.home / "store")
    logs = snapshot(tiny.home / "runs")
    outcome = tiny.json("run", "tiny")
    assert isinstance(outcome, dict)
    assert {outcome[asset] for asset in ASSETS} == {"hit"}
    assert snapshot(tiny.home / "store") == before
    assert snapshot(tiny.home / "runs") == logs


def test_an_edit_after_lorascope_run_shows_as_unsynced_though_no_sensor_had_ticked_before(
    tiny: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny.home / "dagster", tmp_path / "home" / "dagster")
    experiments = Path(shutil.copytree(tiny.experiments, tmp_path / "experiments"))
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORASCOPE_EXPERIMENTS", str(experiments))
    seen = ("lora_checkpoint", "activation_shards", "batchtopk_sae")
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        tick(instance, None)
        assert unsynced(instance, "tiny", seen) == {}
        edited = (experiments / "tiny.yaml").read_text().replace("\nsae:\n", "\nsae:\n  seed: 9\n")
        (experiments / "tiny.yaml").write_text(edited)
        tick(instance, None)
        assert unsynced(instance, "tiny", seen) == {"batchtopk_sae": [["params", "sae"]]}


def test_the_first_run_says_what_it_did_and_where_to_look(tiny: Installation) -> None:
    log = (tiny.home.parent / "run.log").read_text()
    assert "Table 1" in log
    assert "Table 2" in log
    assert "make ui" in log
    assert "train " in log, "the worker's own progress reaches the terminal"
    assert "Traceback" not in log
    assert "Warning" not in log


def test_a_manifest_alone_tells_what_made_the_artifact(tiny: Installation) -> None:
    path = tiny.json("path", "tiny", "batchtopk_sae")
    assert isinstance(path, dict)
    manifest = read_manifest(Path(path["path"]))
    assert (manifest.asset, manifest.experiment) == ("batchtopk_sae", "tiny")
    assert manifest.sections["sae"]["k"] == 4
    assert set(manifest.inputs) == {"activation_shards", "s1k_dataset", "lora_checkpoint"}
    assert manifest.packages["torch"].startswith("2.13.0")


def test_a_changed_k_is_planned_and_run_as_the_sae_and_what_stands_right_of_it(tiny: Installation) -> None:
    (tiny.experiments / "tiny-k8.yaml").write_text("extends: tiny\nsae:\n  k: 8\n")
    planned = tiny.plan("tiny-k8")
    misses = {asset for asset, line in planned.items() if line["cache"] == "miss"}
    assert planned["batchtopk_sae"]["reason"] == "sae.k 4 → 8"
    assert not misses & {
        "s1k_dataset",
        "lora_checkpoint",
        "full_finetune_checkpoint",
        "activation_shards",
        "neuron_shards",
    }
    assert "benchmark_scores" not in misses
    outcome = tiny.json("run", "tiny-k8", "activation_shards", "batchtopk_sae")
    assert outcome == {
        "experiment": "tiny-k8",
        "success": True,
        "activation_shards": "hit",
        "batchtopk_sae": "computed",
    }
    compared = tiny.json("compare", "tiny", "tiny-k8")
    assert isinstance(compared, dict)
    assert compared["parameters"] == [{"parameter": "sae.k", "tiny": 4, "tiny-k8": 8}]
    l0 = next(row for row in compared["numbers"] if row["number"] == "SAE, L0")
    assert l0["delta"] == pytest.approx(l0["tiny-k8"] - l0["tiny"])
    home = Home(tiny.home, tiny.experiments)
    (tiny.experiments / "tiny-k9.yaml").write_text("extends: tiny\nsae:\n  k: 9\n")
    done = dg.materialize([experiment_comparison], resources={"home": home})
    (made,) = done.asset_materializations_for_node("experiment_comparison")
    assert {"tiny", "tiny-k8"} <= set(str(made.metadata["experiments"].value).split(", "))
    assert "tiny-k9" not in str(made.metadata["experiments"].value), "of it only what it has from tiny is computed"
    assert {"parameters", "numbers", "frontier"} <= set(made.metadata)
    assert "agreement" not in made.metadata, "there is one explainer"
    refused = tiny.run("compare", "tiny", "tiny-k9")
    assert refused.returncode == 2
    assert "nothing of 'tiny-k9' is computed yet" in refused.stderr


def test_benchmark_rows_carry_arm_benchmark_correct_and_total(tiny: Installation) -> None:
    rows = tiny.json("show", "tiny", "benchmark_scores")
    assert isinstance(rows, list)
    assert {(row["arm"], row["benchmark"]) for row in rows} == {
        (arm, benchmark)
        for arm in ("base", "lora", "full_finetune", "attention_ablated", "mlp_ablated")
        for benchmark in ("mini_hard", "mini_medium", "mini_choice")
    }
    assert all(0 <= row["correct"] <= row["total"] == 8 for row in rows)


def test_the_report_answers_every_claim_and_never_calls_the_mini_world_comparable(tiny: Installation) -> None:
    rows = tiny.json("show", "tiny", "paper_report")
    assert isinstance(rows, list)
    assert {row["verdict"] for row in rows if row["published"] is not None} <= {"not comparable", "not measured"}
    assert {row["verdict"] for row in rows if row["published"] is None} <= {
        "same pattern",
        "pattern differs",
        "undecided",
        "not bounded",
        "not measured",
    }


def test_a_notebook_gets_typed_artifacts(tiny: Installation) -> None:
    code = (
        "from dagster_project import open_experiment\n"
        "tiny = open_experiment('tiny')\n"
        "sae, shards = tiny.batchtopk_sae, tiny.activation_shards\n"
        "print(type(sae).__name__, sae.d_in, tiny.s1k_dataset.num_rollouts, tiny.ablation_kl.table().num_rows)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=tiny.environment, capture_output=True, text=True, check=True
    )
    name, d_in, rollouts, rows = done.stdout.split()
    assert (name, d_in, rollouts) == ("Sae", "28", "64")
    assert int(rows) > 28


def test_every_component_layer_projection_and_group_has_its_kl(tiny: Installation) -> None:
    path = tiny.json("path", "tiny", "ablation_kl")
    assert isinstance(path, dict)
    rows = pq.read_table(Path(path["path"]) / "ablation.parquet").to_pylist()
    kinds = {
        kind: sum(row["unit_kind"] == kind for row in rows) for kind in ("component", "layer", "projection", "all")
    }
    assert kinds == {"component": 28, "layer": 4, "projection": 7, "all": 1}
    assert all(math.isfinite(row["kl_mean"]) and row["kl_mean"] >= 0 for row in rows)


def test_what_is_not_computed_is_said_in_one_line(tiny: Installation) -> None:
    done = tiny.run("show", "mini", "benchmark_scores")
    assert done.returncode == 2
    assert done.stderr == (
        "lorascope: benchmark_scores of 'mini' is not computed yet: run `lorascope run mini` first\n"
    )


def test_the_paper_experiment_on_this_machine_ends_at_once_with_what_is_missing(
    tiny: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    (tiny.experiments / "paper.yaml").write_text("compute:\n  profile: 8xH200\n")
    before = snapshot(tiny.home)
    done = tiny.run("run", "paper", timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    first, gpus, engine, *keys, model, dataset, aime, math, gpqa = done.stderr.splitlines()
    assert first == "lorascope: paper cannot be computed:"
    assert (
        "need GPUs, up to 8, and" in gpus
        and "weights 61.0 GiB (32.76 B parameters x 2 bytes)" in tiny.run("plan", "paper", "--explain").stdout
    )
    assert engine.startswith("- benchmark_scores decodes with vLLM, which is not installed: pip install")
    assert [line.split()[1] for line in keys] == ["interpretations", "interpretation_scores", "feature_categories"]
    assert model.startswith("- Qwen/Qwen2.5-32B-Instruct is neither a local folder nor whole in the local hub cache")
    assert dataset.startswith("- simplescaling/s1K-1.1 is neither a local folder nor whole in the local hub cache")
    assert [line.split()[1] for line in (aime, math, gpqa)] == [
        "simplescaling/aime24_nofigures", "simplescaling/openaimath", "Idavidrein/gpqa"
    ]  # fmt: skip
    assert set(snapshot(tiny.home)) == set(before)


def test_ctrl_c_leaves_no_process_and_no_artifact_and_the_next_run_goes_on(tiny: Installation) -> None:
    (tiny.experiments / "tiny-stopped.yaml").write_text(
        "extends: tiny\nlora:\n  seed: 7\n  epochs: 20\ncompute:\n  checkpoint_steps: 5\n"
    )
    command = [str(Path(sys.executable).with_name("lorascope")), "run", "tiny-stopped", "lora_checkpoint"]
    log = tiny.home.parent / "stopped.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=tiny.environment, stdout=out, stderr=out, start_new_session=True)
        deadline = time.monotonic() + 120
        while not (training := re.search(r"train ([1-9]\d+)/80", log.read_text())) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert training, log.read_text()
        process.send_signal(signal.SIGINT)
        process.wait(60)
    key = tiny.plan("tiny-stopped")["lora_checkpoint"]["key"]
    assert not (tiny.home / "store" / "lora_checkpoint" / key).exists()
    assert processes_of(key) == []
    again = tiny.run("run", "tiny-stopped", "lora_checkpoint")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "lora_checkpoint failed: stopped. What is finished is kept" in log.read_text()
    assert "Traceback" not in log.read_text() and "Stack Trace" not in log.read_text()
    resumed = re.search(r"going on after step (\d+) of 80", again.stdout + again.stderr)
    assert resumed and int(resumed[1]) >= 5


def processes_of(marker: str) -> list[int]:
    """Processes whose command line or environment names the key."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in text and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def test_a_malformed_experiment_stops_nobody_else(tiny: Installation) -> None:
    (tiny.experiments / "broken.yaml").write_text("sae:\n  kk: 3\n")
    done = tiny.run("plan", "broken")
    assert done.returncode == 2
    assert done.stderr == f"lorascope: {tiny.experiments}/broken.yaml:2: unknown key 'sae.kk'; did you mean 'k'?\n"
    assert tiny.run("plan", "tiny").returncode == 0
    (tiny.experiments / "broken.yaml").unlink()


def test_gc_keeps_what_experiments_reach_and_takes_the_rest(tiny: Installation) -> None:
    (tiny.experiments / "tiny-gone.yaml").write_text("extends: tiny\ndataset:\n  max_rollouts: 9\n")
    assert tiny.run("run", "tiny-gone", "s1k_dataset").returncode == 0
    key = tiny.plan("tiny-gone")["s1k_dataset"]["key"]
    (tiny.experiments / "tiny-gone.yaml").unlink()
    before = set(snapshot(tiny.home / "store"))
    assert f"store/s1k_dataset/{key}" in tiny.run("gc", "--dry-run").stdout
    assert set(snapshot(tiny.home / "store")) == before
    assert tiny.run("gc").returncode == 0
    assert {path for path in before if key not in path} == set(snapshot(tiny.home / "store"))
    assert tiny.run("verify").stdout.endswith("0 damaged files\n")


def test_plan_json_is_a_list_of_asset_cache_reason_and_key(tiny: Installation) -> None:
    lines = json.loads(tiny.run("plan", "tiny", "--json").stdout)
    assert [line["asset"] for line in lines] == ASSETS
    assert {"asset", "cache", "reason", "key"} <= set(lines[0])

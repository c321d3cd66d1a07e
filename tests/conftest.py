"""Fixtures every room's tests share: the tiny model, adapter and experiment, built once a session."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.builders import build_random_adapter, build_tiny_qwen2
from tests.installation import Installation, build_tiny
from tests.resources.launcher.slurm_cluster import Cluster, Unavailable, start

# Triton reads this when a kernel is defined: on a claimed GPU its kernels run step by step on the CPU.
os.environ["TRITON_INTERPRET"] = "1"

# Nothing is timed: hypothesis gives an example 200 ms, which a busy machine does not always keep.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Qwen2 with a byte tokenizer."""
    return build_tiny_qwen2(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random rank-1 adapter for `tiny_model`."""
    return build_random_adapter(tmp_path_factory.mktemp("adapter"), tiny_model)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation in which `lorascope run tiny` has succeeded (two minutes, for slow tests only)."""
    return build_tiny(tmp_path_factory.mktemp("installation"))


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder like /tmp: pytest's own folders are closed to other users."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        yield folder


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running Slurm; `LORASCOPE_REQUIRE_SLURM` turns its absence into a failure."""
    try:
        cluster = start(tmp_path_factory.mktemp("slurm"))
    except Unavailable as reason:
        if os.environ.get("LORASCOPE_REQUIRE_SLURM"):
            raise
        pytest.skip(f"no Slurm here: {reason}")
    os.environ["SLURM_CONF"] = str(cluster.conf)
    yield cluster
    del os.environ["SLURM_CONF"]
    cluster.stop()

"""A real one-node Slurm from Debian's packages with eight fake H200s, for as long as a test session."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
BINARIES = ("slurmctld", "slurmd", "sbatch", "munged")
GPUS, CPUS = 8, 16


class Unavailable(RuntimeError):
    """Why there is no Slurm here."""


def install() -> None:
    """Get Debian's packages, if they are not there.

    Raises:
        Unavailable: without root or without a package source.
    """
    if all(shutil.which(name) for name in BINARIES):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable(f"needs root and apt-get to install {' '.join(PACKAGES)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    steps = (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES])
    for step in steps:
        done = subprocess.run(step, env=quiet, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"{' '.join(step)} failed: {done.stderr[-500:]}")


@dataclass
class Cluster:
    """The daemons and their folder."""

    folder: Path
    daemons: list["subprocess.Popen[bytes]"]

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def start(folder: Path) -> Cluster:
    """Munge, controller and node, all of them private to `folder`; returns once the node is idle."""
    install()
    for name in ("ctld", "d", "dev", "munge"):
        (folder / name).mkdir(parents=True)
    for index in range(GPUS):
        os.mknod(folder / "dev" / f"gpu{index}", 0o666 | 0o020000, os.makedev(1, 3))
    _write_configuration(folder)
    cluster = Cluster(folder, [])
    try:
        _start_munge(cluster)
        _start_slurm(cluster)
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _write_configuration(folder: Path) -> None:
    controller, node = _free_ports(2)
    socket_path = folder / "munge" / "socket"
    host = socket.gethostname().split(".")[0]
    (folder / "gres.conf").write_text(f"Name=gpu Type=h200 File={folder}/dev/gpu[0-{GPUS - 1}]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "slurm.conf").write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={socket_path},cred_expire=5
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/d
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
KillWait=30
MinJobAge=300
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory=4000 Gres=gpu:h200:{GPUS} State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes={host} PriorityTier=2 MaxTime=INFINITE State=UP
"""
    )


def _start_munge(cluster: Cluster) -> None:
    munge = cluster.folder / "munge"
    key = munge / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    munge.chmod(0o755)
    options = [f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={munge}/pid", f"--seed-file={munge}/seed"]
    log = munge / "log"
    with log.open("wb") as file:
        command = ["munged", "--foreground", "--force", *options, f"--log-file={log}"]
        cluster.daemons.append(subprocess.Popen(command, stdout=file, stderr=file))
    _wait_until(lambda: (munge / "socket").exists(), "munged did not open its socket", log)


def _start_slurm(cluster: Cluster) -> None:
    for name, options in (("slurmctld", ["-D", "-i"]), ("slurmd", ["-D"])):
        with (cluster.folder / f"{name}.log").open("wb") as file:
            command = [name, *options, "-f", str(cluster.conf)]
            cluster.daemons.append(subprocess.Popen(command, stdout=file, stderr=file))
    environment = {**os.environ, "SLURM_CONF": str(cluster.conf)}

    def idle() -> bool:
        states = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
        return states.stdout.strip() == "idle"

    _wait_until(idle, "the node never became idle", cluster.folder / "slurmd.log")


def _wait_until(ready: Callable[[], bool], problem: str, log: Path, patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > deadline:
            raise Unavailable(f"{problem}; {log.name} ends with: {log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.1)

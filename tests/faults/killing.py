"""Kill a run anywhere, run it again, and compare: every choice comes from one seed, which every message repeats.

A round starts from a store that holds some assets of an undisturbed installation, asks for the next few, is killed
again and again at random moments, and is then left alone.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dagster_project.rooms import STAGES
from dagster_project.upkeep import verify_store
from resources.keys import file_digest
from resources.manifest import FILE_NAME
from resources.store import Store
from tests.installation import Installation

EXPERIMENT = "tiny"
WAYS = ("everything", "group", "parent", "keeper", "worker")
"""What SIGKILL hits: every process at once, the run's process group, the run, what keeps the job, or one worker."""
PATIENCE_S = 30.0
"""The keeper gives a job whose run was killed five seconds; a busy machine takes its time."""
STARTUP_S = 6.0
"""Of a run before its first job works."""


@dataclass(frozen=True)
class Plan:
    """One round: the assets that are asked for; everything left of them is there."""

    assets: tuple[str, ...]
    ways: tuple[str, ...]
    """One kill each, at most: a run that ends before its moment ends the round."""
    seed: int
    share: float = 1.0
    """Of a run's estimated length, within which its kill falls."""


@dataclass
class Seen:
    """What happened in one round."""

    plan: Plan
    kills: list[dict[str, object]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Every broken promise, in words; empty is what we want."""
    seconds: float = 0.0


def draw(seed: int, kills: int = 5, longest: int = 3) -> Plan:
    """A round by its seed."""
    random_ = random.Random(seed)
    first = random_.randrange(len(STAGES))
    assets = tuple(stage.asset for stage in STAGES[first : first + random_.randint(1, longest)])
    return Plan(assets, tuple(random_.choice(WAYS) for _ in range(kills)), seed)


def contents(home: Path, assets: Sequence[str]) -> dict[str, str]:
    """SHA-256 of every file of some assets, apart from what tells the time (see `_tells_the_time`)."""
    root = home / "store"
    files = (path for asset in assets for path in (root / asset).glob("*/**/*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): file_digest(path)
        for path in files
        if not _tells_the_time(path.relative_to(root))
    }


def undisturbed(whole: Installation, asset: str) -> dict[str, str]:
    """`contents` of the experiment's own artifact: other tests make variants in the same installation."""
    place = f"{asset}/{whole.plan(EXPERIMENT)[asset]['key']}/"
    return {name: found for name, found in contents(whole.home, [asset]).items() if name.startswith(place)}


def _tells_the_time(path: Path) -> bool:
    """Manifests, TensorBoard's events, and the report's page, which shows seconds and dates of the manifests."""
    return path.name == FILE_NAME or "tensorboard" in path.parts or path.match("paper_report/*/index.html")


def branch(whole: Installation, folder: Path, assets: Sequence[str]) -> Installation:
    """A new installation with the experiment's artifacts left of `assets`, as links where they can be."""
    home = folder / "home"
    (home / "store").mkdir(parents=True)
    planned = whole.plan(EXPERIMENT)
    left = [stage.asset for stage in STAGES if stage.asset not in assets]
    for asset in left:
        key = planned[asset]["key"]
        source, target = whole.home / "store" / asset / key, home / "store" / asset / key
        here = source.stat().st_dev == home.stat().st_dev
        shutil.copytree(source, target, copy_function=os.link if here else shutil.copy)
    return Installation(home, whole.experiments)


def processes_of(home: Path) -> dict[int, str]:
    """Command line by number of every process of an installation: its environment names the home."""
    wanted = b"LORASCOPE_HOME=" + os.fsencode(home)
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def half_made(home: Path) -> Iterator[Path]:
    """Artifacts that can be seen without their manifest."""
    for folder in (home / "store").glob("[!.]*/*"):
        if not (folder / FILE_NAME).exists() and folder.exists():
            yield folder


def leftovers(home: Path) -> list[str]:
    """Temporary folders and files that a finished run must not leave behind."""
    patterns = ("store/.partial/*/*", "store/.claims/*", "runs/[!.]*", "generations/.*", "store/.history/*/.*")
    return [str(path.relative_to(home)) for pattern in patterns for path in home.glob(pattern)]


def strike(way: str, process: "subprocess.Popen[bytes]", home: Path, random_: random.Random) -> str:
    """SIGKILL; what was hit, for the record. An empty text when there is nothing of that kind now."""
    if way == "group":
        os.killpg(process.pid, signal.SIGKILL)
        return "the process group of the run"
    if way == "parent":
        process.kill()
        return "the run"
    family = processes_of(home)
    words = {"everything": "", "keeper": "keeper.py", "worker": "resources.worker"}[way]
    hit = [pid for pid, line in family.items() if words in line and (way != "worker" or "keeper.py" not in line)]
    if way == "worker" and hit:
        hit = [random_.choice(hit)]
    for pid in hit:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return f"{len(hit)} of {len(family)} processes" if hit else ""


def start(installation: Installation, assets: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """`lorascope run` of some assets in a session of its own."""
    command = [str(Path(sys.executable).with_name("lorascope")), "run", EXPERIMENT, *assets]
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            env=installation.environment,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def play(plan: Plan, whole: Installation, folder: Path) -> Seen:
    """One round, from the empty branch to the comparison."""
    began, seen, random_ = time.monotonic(), Seen(plan), random.Random(plan.seed)
    installation = branch(whole, folder, plan.assets)
    seconds = {asset: _seconds(whole, asset) for asset in plan.assets}
    for way in plan.ways:
        left = [asset for asset in plan.assets if not (installation.home / "store" / asset).exists()]
        moment = random_.uniform(0.0, plan.share * (STARTUP_S + sum(seconds[asset] for asset in left)))
        if not _kill_once(way, moment, installation, plan, seen, random_):
            break
        if random_.random() < 0.5:
            # The other half runs again at once, into whatever is still dying.
            _await_silence(installation.home, seen)
    _finish(installation, whole, plan, seen)
    seen.seconds = time.monotonic() - began
    return seen


def _seconds(whole: Installation, asset: str) -> float:
    """What the asset's job took undisturbed, and its start."""
    manifest = next((whole.home / "store" / asset).glob(f"*/{FILE_NAME}"))
    return float(json.loads(manifest.read_text())["seconds"]) + 2.0


def _kill_once(
    way: str, moment: float, installation: Installation, plan: Plan, seen: Seen, random_: random.Random
) -> bool:
    """Whether something was killed before the run had ended."""
    log = installation.home.parent / f"killed-{len(seen.kills)}.log"
    process = start(installation, plan.assets, log)
    began = time.monotonic()
    hit = ""
    while process.poll() is None and not hit:
        seen.faults += [f"{path} is there without its manifest" for path in half_made(installation.home)]
        if time.monotonic() - began >= moment:
            hit = strike(way, process, installation.home, random_)
        time.sleep(0.02)
    if way in ("keeper", "worker"):
        _await_end(process, installation, seen)
    process.wait()
    if hit:
        done = [asset for asset in plan.assets if (installation.home / "store" / asset).exists()]
        seen.kills.append({"way": way, "moment_s": round(moment, 2), "hit": hit, "finished": len(done)})
    return bool(hit)


def _await_end(process: "subprocess.Popen[bytes]", installation: Installation, seen: Seen) -> None:
    """A run whose worker was killed fails, or tries again and succeeds; it does not hang."""
    try:
        process.wait(600)
    except subprocess.TimeoutExpired:
        seen.faults.append(f"the run hung after its worker was killed; see {installation.home.parent}")
        process.kill()


def _await_silence(home: Path, seen: Seen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while family := processes_of(home):
        if time.monotonic() > deadline:
            seen.faults.append(f"orphans {PATIENCE_S:.0f} s after the kill: {family}")
            return
        time.sleep(0.1)


def _finish(installation: Installation, whole: Installation, plan: Plan, seen: Seen) -> None:
    """Run to the end and hold the result against the undisturbed one."""
    home, log = installation.home, installation.home.parent / "last.log"
    code = start(installation, plan.assets, log).wait()
    text = log.read_text(errors="replace")
    if code or "Traceback" in text:
        seen.faults.append(f"the last run ended with exit code {code}: {text[-1500:]}")
        return
    expected, found = contents(whole.home, plan.assets), contents(home, plan.assets)
    wanted = {whole.plan(EXPERIMENT)[asset]["key"] for asset in plan.assets}
    expected = {name: value for name, value in expected.items() if name.split("/")[1] in wanted}
    differ = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    seen.faults += [f"{name} differs from the undisturbed run" for name in differ]
    seen.faults += [f"{path} was left behind" for path in leftovers(home)]
    seen.faults += [str(damage) for damage in verify_store(Store(home / "store"), lambda _: None)]
    _await_silence(home, seen)

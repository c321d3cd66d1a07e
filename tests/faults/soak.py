"""Kill runs a hundred times and write what came of it: python -m tests.faults.soak [--kills 100] [--seed 1]

Rounds of up to five kills until the number is reached; the figures go into docs/reliability.json, failing rounds keep
their folders.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from resources.sources import PROJECT
from tests.faults.killing import Seen, draw, play
from tests.installation import TINY, Installation, build_installation, build_tiny

FIGURES = PROJECT / "docs" / "reliability.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next ones count up")
    parser.add_argument(
        "--whole", type=Path, help="LORASCOPE_HOME with a finished run of tiny.yaml; made when not given"
    )
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lorascope-soak-"))
    whole = _whole(given.whole, folder)
    rounds: list[Seen] = []
    while sum(len(seen.kills) for seen in rounds) < given.kills:
        rounds.append(_round(given.seed + len(rounds), whole, folder))
        _write(rounds, given.seed)
    print(f"figures in {FIGURES}")
    return 1 if any(seen.faults for seen in rounds) else 0


def _whole(home: Path | None, folder: Path) -> Installation:
    if home is None:
        print("an undisturbed run of tiny first", flush=True)
        return build_tiny(folder / "whole")
    experiments = build_installation(folder / "whole", [PROJECT / "experiments" / "mini.yaml", TINY]).experiments
    return Installation(home.absolute(), experiments)


def _round(seed: int, whole: Installation, folder: Path) -> Seen:
    plan = draw(seed)
    seen = play(plan, whole, folder / f"round-{seed}")
    ways = ", ".join(f"{kill['way']} at {kill['moment_s']} s" for kill in seen.kills) or "no kill"
    print(f"seed {seed}: {' '.join(plan.assets)}: {ways}; {seen.seconds:.0f} s, {len(seen.faults)} faults", flush=True)
    for fault in seen.faults:
        print(f"  {fault}", flush=True)
    if not seen.faults:
        shutil.rmtree(folder / f"round-{seed}")
    return seen


def _write(rounds: list[Seen], seed: int) -> None:
    ways = Counter(str(kill["way"]) for seen in rounds for kill in seen.kills)
    assets = Counter(asset for seen in rounds for asset in seen.plan.assets)
    figures = {
        "kill": {
            "command": f"python -m tests.faults.soak --seed {seed}",
            "cpus": os.cpu_count(),
            "rounds": len(rounds),
            "kills": sum(ways.values()),
            "kills_by_way": dict(ways),
            "rounds_by_asset": dict(assets),
            "faults": sum(len(seen.faults) for seen in rounds),
            "seconds": round(sum(seen.seconds for seen in rounds)),
            "each": [asdict(seen) for seen in rounds],
        }
    }
    FIGURES.parent.mkdir(exist_ok=True)
    before = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.write_text(json.dumps({**before, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

"""Environments for what a bench compares with: made on first use, and nothing of the project's is changed.

Imported by the peers' Python too, so nothing of the project is.
"""

import subprocess
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path


def peer_environment(folder: Path, *installs: Sequence[str]) -> Path:
    """The Python of the environment in `folder`; it sees this project's packages. `installs`: arguments of pip's."""
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        venv.create(folder, with_pip=True, clear=True)
        # a path file lets the peers use this project's torch, so that pip fetches no other
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for arguments in installs:
            subprocess.run([python, "-m", "pip", "install", "-qq", *arguments], check=True)
        (folder / "ready").touch()
    return python

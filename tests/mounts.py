"""Small file systems for tests that lose or fill one; where there is no right to mount, they say so and skip."""

import subprocess
from pathlib import Path

import pytest


def mount(folder: Path, *arguments: str | Path) -> None:
    """Mount by `mount`'s arguments at a folder, which is made."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    """Take the file system away, whoever still uses it; nothing where none is mounted."""
    subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)

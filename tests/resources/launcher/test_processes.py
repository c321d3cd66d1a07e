"""What the kernel says of processes, also where it hides those of other users."""

import os
import subprocess
import sys

import pytest

from resources.launcher.processes import exists, identity
from resources.sources import PROJECT

ASK = """
import os
from resources.launcher.processes import exists
os.setgroups([])  # group 0 may see everything
os.setegid(1002)
os.seteuid(1002)
print(exists({living!r}), exists({dead!r}))
"""


@pytest.mark.parametrize("hidden", [1, 2])
def test_another_users_process_that_the_kernel_hides_is_alive_and_one_that_ended_is_not(hidden: int) -> None:
    """Login nodes mount /proc so; a run that is taken for killed is failed, and loses its place."""
    if os.geteuid():
        pytest.skip("only root can mount /proc anew and act as another user")
    with subprocess.Popen(["sleep", "60"], user=1001) as living, subprocess.Popen(["true"]) as ended:
        dead = identity(ended.pid)
        ended.wait()
        ask = ASK.format(living=identity(living.pid), dead=dead)
        script = f'mount -t proc -o hidepid={hidden} proc /proc && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", ask]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        living.kill()
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"cannot mount /proc: {done.stderr.strip()}")
    assert done.stdout == "True False\n", done.stderr


def test_another_process_with_the_same_number_is_not_the_one_that_was_meant() -> None:
    assert exists(identity(os.getpid()))
    assert not exists(f"{os.getpid()}:1")

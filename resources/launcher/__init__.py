"""One way to run a job on a node: a small protocol over processes of this machine, or over Slurm.

No package did this without hanging or losing messages, so it is our own: submit, alive, cancel, and one run directory.
"""

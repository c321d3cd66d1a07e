"""The two ways a job ends badly that a user can act on; everything else is a bug and keeps its traceback."""


class BadInput(ValueError):
    """What the user gave cannot be used: one sentence saying what, where and what to do. Never retried."""


class Interrupted(RuntimeError):
    """The work was stopped from outside after saving its state; running it again goes on from there."""

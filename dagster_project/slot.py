"""The pool slot that holds the 8xH200 node: claimed only when there is work, so that a cache hit never waits for it.

An asset's own `pool` would be claimed before its first line runs, and every hit would stand in the queue.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from dagster_project.process import is_gone, other_host
from dagster_project.wanted import unbroken

POOL = "h200_node"
POLL_S = 0.5
REMEDY = "if that machine is down: terminate the run in the UI, with 'Force termination immediately'"
"""Whether a process of another machine lives, nobody here can tell."""


@contextmanager
def slot(context: dg.AssetExecutionContext, pause: Callable[[float], None], poll_s: float = POLL_S) -> Iterator[None]:
    """Hold one slot of the pool while the block runs; waits in Dagster's own queue and says for whom.

    `pause` is called with the seconds between two questions; what it raises ends the wait.
    """
    storage, run = context.instance.event_log_storage, context.run
    if not storage.supports_global_concurrency_limits:
        yield
        return
    step = str(context.op_execution_context.op_handle)
    _ensure_limit(context.instance)
    told: list[str] = []

    @unbroken()
    def take() -> bool:
        nonlocal told
        if storage.claim_concurrency_slot(POOL, run.run_id, step).is_claimed:
            return True
        _free_dead_holders(context.instance)
        holders = _holders(context.instance)
        if holders != told:
            context.log.info(f"waiting for a slot of {POOL}, held by {', '.join(holders) or 'nobody: its limit is 0'}")
            told = holders
        return False

    try:
        while not take():
            pause(poll_s)
        yield
    finally:
        storage.free_concurrency_slot_for_step(run.run_id, step)


@unbroken()
def _ensure_limit(instance: dg.DagsterInstance) -> None:
    """dagster.yaml or the UI sets the limit; without either it is one job at a time."""
    info = instance.event_log_storage.get_concurrency_info(POOL)
    if info.limit is None:
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
    elif info.using_default_limit and info.slot_count != instance.global_op_concurrency_default_limit:
        instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)


def _holders(instance: dg.DagsterInstance) -> list[str]:
    claimed = instance.event_log_storage.get_concurrency_info(POOL).claimed_slots
    return [f"{slot.step_key} of {_named(instance, slot.run_id)}" for slot in claimed]


def _named(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    partition = run.tags.get("dagster/partition") if run else None
    named = f"run {run_id[:8]}" + (f" (experiment {partition})" if partition else "")
    return f"{named} on {host} ({REMEDY})" if run and (host := other_host(run)) else named


def _free_dead_holders(instance: dg.DagsterInstance) -> None:
    """A run that was killed outright cannot give its slot back, and without a daemon nobody else would."""
    for claimed in instance.event_log_storage.get_concurrency_info(POOL).claimed_slots:
        run = instance.get_run_by_id(claimed.run_id)
        if run is None or run.is_finished or is_gone(run):
            instance.event_log_storage.free_concurrency_slots_for_run(claimed.run_id)

"""One tick of the experiments sensor, and what the daemon and the UI make of what it returns."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from dagster_project.definitions import defs
from sensors.experiments import experiments


def tick(instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult | dg.SkipReason:
    """Partitions are registered and observations stored; raises what the sensor raises."""
    with dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs) as context:
        result = experiments(context)
    if isinstance(result, dg.SkipReason):
        return result
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or ():
        instance.add_dynamic_partitions("experiment", list(request.partition_keys))
    for event in result.asset_events:
        assert isinstance(event, dg.AssetObservation)
        instance.report_runless_asset_event(event)
    return result


def unsynced(instance: dg.DagsterInstance, experiment: str, assets: Sequence[str]) -> dict[str, list[list[str]]]:
    """Assets whose partition the UI shows as Unsynced -> the assets it blames."""
    graph = defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    causes = {asset: resolver.get_stale_causes(dg.AssetKey(asset), experiment) for asset in assets}
    return {
        asset: [list(cause.dependency.asset_key.path) for cause in found if cause.dependency]
        for asset, found in causes.items()
        if found
    }

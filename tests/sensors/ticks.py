"""One tick of the experiments sensor, and what the daemon does with what it returns."""

import dagster as dg

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

"""Processes that start the same experiment at the same moment all find its partition."""

import dagster as dg
import pytest
from dagster._core.storage.event_log.schema import DynamicPartitionsTable
from sqlalchemy.exc import IntegrityError

from dagster_project.run import add_partition


def insert(instance: dg.DagsterInstance, name: str) -> None:
    """What Dagster does after it has looked."""
    storage = instance.event_log_storage
    with storage.index_connection() as connection:  # pyright: ignore[reportAttributeAccessIssue]
        connection.execute(DynamicPartitionsTable.insert(), [{"partitions_def_name": "experiment", "partition": name}])


def test_a_partition_that_another_process_added_meanwhile_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.instance_for_test() as instance:
        insert(instance, "e")
        monkeypatch.setattr(instance, "add_dynamic_partitions", lambda _, names: insert(instance, *names))
        with pytest.raises(IntegrityError):
            insert(instance, "e")
        add_partition(instance, "e")
        assert instance.get_dynamic_partitions("experiment") == ["e"]


def test_a_partition_that_cannot_be_added_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_name: str, _keys: list[str]) -> None:
        raise IntegrityError("insert", {}, Exception("full"))

    with dg.instance_for_test() as instance:
        monkeypatch.setattr(instance, "add_dynamic_partitions", refused)
        with pytest.raises(IntegrityError):
            add_partition(instance, "e")

"""What a column says of itself stands in the file, and tells no schema from another."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from resources.columns import described, required


def test_a_description_is_kept_in_parquet_and_changes_no_equality(tmp_path: Path) -> None:
    schema = pa.schema([described("a", pa.int32(), "nats"), required("b", pa.string(), "unit id")])
    pq.write_table(pa.table({"a": [None], "b": ["x"]}, schema=schema), tmp_path / "t.parquet")
    found = pq.read_schema(tmp_path / "t.parquet")
    assert [field.metadata for field in found] == [{b"description": b"nats"}, {b"description": b"unit id"}]
    assert found == schema == pa.schema([("a", pa.int32()), pa.field("b", pa.string(), nullable=False)])

"""Columns of tables on disk that say what they hold: Dagster's column schema and the documentation show it."""

import pyarrow as pa


def described(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """A column, with unit and meaning; equality of schemas does not look at them."""
    return pa.field(name, kind, metadata={"description": description})


def required(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """A column without nulls."""
    return described(name, kind, description).with_nullable(False)

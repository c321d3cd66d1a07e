"""A manifest reads back as it was written, or is called damaged: no byte of it can change unseen."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.manifest import FILE_NAME, read_manifest, write_manifest
from tests.resources.test_store import build_manifest

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
METRICS = st.dictionaries(
    st.text(max_size=8),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner)),
    max_size=4,
)


@given(metrics=METRICS)
def test_whatever_was_measured_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, metrics: dict) -> None:
    folder = tmp_path_factory.mktemp("m")
    written = build_manifest().model_copy(update={"metrics": metrics})
    write_manifest(folder, written)
    assert read_manifest(folder) == written
    assert json.loads((folder / FILE_NAME).read_bytes())["metrics"] == metrics


def test_every_bit_of_the_file_counts(tmp_path: Path) -> None:
    write_manifest(tmp_path, build_manifest().model_copy(update={"metrics": {"fvu": 1e-5}}))
    file = tmp_path / FILE_NAME
    whole = file.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match="differs from its checksum"):
            read_manifest(tmp_path)


def test_a_file_cut_anywhere_or_longer_is_damaged(tmp_path: Path) -> None:
    write_manifest(tmp_path, build_manifest())
    file = tmp_path / FILE_NAME
    whole = file.read_bytes()
    for text in (*(whole[:end] for end in range(len(whole))), whole + b"\n", whole + b" "):
        file.write_bytes(text)
        with pytest.raises(ValueError, match="differs from its checksum"):
            read_manifest(tmp_path)


def test_a_metric_that_is_no_number_is_refused_when_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, build_manifest().model_copy(update={"metrics": {"fvu": float("nan")}}))

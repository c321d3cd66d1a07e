"""What the UI shows of an artifact."""

import base64
from pathlib import Path

from dagster_project.metadata import charts
from resources.charts import FOLDER


def test_a_long_name_of_a_chart_can_be_broken_into_lines(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "dose_adapter_L3_down_proj_positive.png").write_bytes(b"picture")
    (name,), (shown,) = zip(*charts(tmp_path).items(), strict=True)
    assert name == "plot/dose adapter L3 down proj positive"
    assert base64.b64encode(b"picture").decode() in str(shown.value)

"""Charts as they are stored and shown."""

import io
from pathlib import Path

import numpy as np
import vl_convert
from PIL import Image

from resources.charts import FOLDER, SCALE, line_chart, save_chart


def test_a_charts_picture_has_a_palette_and_looks_as_it_was_drawn(tmp_path: Path) -> None:
    chart = line_chart([{"step": float(i), "loss": 1 / (i + 1)} for i in range(50)], "loss", "Loss")
    save_chart(chart, tmp_path, "loss")
    picture = (tmp_path / FOLDER / "loss.png").read_bytes()
    drawn = vl_convert.vegalite_to_png(chart.to_json(indent=None), scale=SCALE)
    with Image.open(io.BytesIO(picture)) as mine, Image.open(io.BytesIO(drawn)) as theirs:
        assert mine.mode == "P"
        difference = np.abs(np.asarray(mine.convert("RGB"), float) - np.asarray(theirs.convert("RGB"), float))
    assert len(picture) < len(drawn) / 3
    assert difference.max() <= 32  # of 255
    assert difference.mean() < 0.5

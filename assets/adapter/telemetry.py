"""What a training says while it runs: one line per step, TensorBoard events, and at the end curve and charts."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from assets.adapter.artifact import CURVE, CURVE_SCHEMA
from assets.adapter.flops import Work
from resources.charts import line_chart, png, save_chart
from resources.progress import Progress

if TYPE_CHECKING:
    import altair

POINTS = 500
"""Most points of the plot that is shown while training."""
NAMES = {"loss": "loss", "grad_norm": "gradient norm"}
"""Columns of the curve that are plotted, and their titles."""
EVENTS = "tensorboard"
"""Subfolder of the scratch folder while training, of the artifact afterwards."""


class Telemetry:
    """Speaks for the first process; the others are silent."""

    def __init__(
        self, title: str, progress: Progress, scratch: Path, work: Work, peak_flops: float, *, speaks: bool
    ) -> None:
        """`title`: what is trained; `peak_flops`: of all processes together."""
        self._title = title
        self._progress = progress
        self._events = scratch / EVENTS
        self._work = work
        self._peak = peak_flops
        self._speaks = speaks
        self._writer = None
        self._began = time.perf_counter()
        self._tokens = 0
        self._flops = 0.0

    @property
    def stopping(self) -> bool:
        """Whether this process has been told to save and stop."""
        return self._progress.stopping

    def say(self, text: str) -> None:
        """One line."""
        if self._speaks:
            self._progress.say(text)

    def step(self, curve: list[dict[str, float]], num_steps: int, lengths: list[int], predicted: int) -> None:
        """Report the last step of `curve`, over rollouts of these lengths."""
        self._tokens += sum(lengths)
        self._flops += self._work.of(lengths, predicted)
        if not self._speaks:
            return
        row = curve[-1]
        speeds = {"tokens_per_second": self.tokens_per_second, "mfu": self.mfu}
        shown = {name: row[name] for name in ("loss", "learning_rate", "grad_norm")} | speeds
        number = int(row["step"])
        self._progress.step("train", number, num_steps, shown)
        self._progress.picture("loss", lambda: png(self._chart(curve[:: 1 + len(curve) // POINTS], "loss")))
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self._events), purge_step=number)
        for name, value in shown.items():
            self._writer.add_scalar(f"train/{name}", value, number)

    @property
    def seconds(self) -> float:
        """Since this process began to train."""
        return time.perf_counter() - self._began

    @property
    def tokens_per_second(self) -> float:
        """Of all processes together, since this run of the loop began."""
        return self._tokens / self.seconds

    @property
    def mfu(self) -> float:
        """Share of the machine's arithmetic that went into what the mathematics needs."""
        return self._flops / self.seconds / self._peak

    def close(self, curve: list[dict[str, float]], out: Path) -> None:
        """Write the curve, its charts and the event files into the artifact."""
        if not self._speaks:
            return
        pq.write_table(pa.Table.from_pylist(curve, CURVE_SCHEMA), out / CURVE, compression="zstd")
        save_chart(self._chart(curve, "loss"), out, "loss")
        save_chart(self._chart(curve, "grad_norm"), out, "grad_norm")
        if self._writer is not None:
            self._writer.close()
            shutil.copytree(self._events, out / EVENTS)

    def _chart(self, curve: list[dict[str, float]], column: str) -> "altair.Chart":
        return line_chart(curve, column, f"{self._title}: {NAMES[column]}")

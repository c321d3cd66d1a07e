"""Checkpoints on disk: a PEFT folder for the adapter, a transformers folder for the full finetune."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from resources.errors import BadInput

if TYPE_CHECKING:
    from resources.adapters import Adapter

CURVE = "loss_curve.parquet"
"""One row per optimiser step; not there for a published checkpoint."""
CURVE_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False, metadata={"description": "optimiser step, from 1"}),
        pa.field("epoch", pa.int32(), nullable=False, metadata={"description": "pass over the rollouts, from 1"}),
        pa.field("loss", pa.float64(), nullable=False, metadata={"description": "mean over the assistant's tokens"}),
        pa.field("learning_rate", pa.float64(), nullable=False, metadata={"description": "used by this step"}),
        pa.field("grad_norm", pa.float64(), nullable=False, metadata={"description": "before clipping"}),
        pa.field("tokens", pa.int64(), nullable=False, metadata={"description": "computed so far"}),
    ]
)


@dataclass(frozen=True)
class LoraCheckpoint:
    """A PEFT adapter; the folder itself is what PEFT and vLLM load."""

    folder: Path
    adapter: "Adapter"

    @classmethod
    def open(cls, path: Path) -> "LoraCheckpoint":
        """Open an artifact folder.

        Raises:
            BadInput: when it holds no adapter that this project reads.
        """
        from resources.adapters import Adapter

        return cls(path, Adapter.open(path))

    def table(self) -> pa.Table:
        """One row per component: the norms of A, B and of the update scale * B @ A (Frobenius)."""
        return pa.Table.from_pylist(component_norms(self.adapter))

    def curve(self) -> pa.Table | None:
        """The loss curve; None for a published adapter."""
        return read_curve(self.folder)


@dataclass(frozen=True)
class FullFinetuneCheckpoint:
    """A finetuned model; the folder itself is what transformers and vLLM load."""

    folder: Path

    @classmethod
    def open(cls, path: Path) -> "FullFinetuneCheckpoint":
        """Open an artifact folder.

        Raises:
            BadInput: when it holds no transformers model.
        """
        if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
            raise BadInput(f"{path} is no transformers model: it needs config.json and safetensors")
        return cls(path)

    def table(self) -> pa.Table:
        """The loss curve; empty for a published model."""
        curve = read_curve(self.folder)
        return CURVE_SCHEMA.empty_table() if curve is None else curve


def read_curve(folder: Path) -> pa.Table | None:
    """The loss curve of a training, if there was one."""
    return pq.read_table(folder / CURVE) if (folder / CURVE).is_file() else None


def component_norms(adapter: "Adapter") -> list[dict[str, str | int | float]]:
    """Rows component, layer, projection, norm_a, norm_b, norm_update."""
    import torch

    rows: list[dict[str, str | int | float]] = []
    for component in adapter.components:
        a_RI, b_OR = adapter.A[component].double(), adapter.B[component].double()
        # ||B A||_F^2 = trace((B^T B)(A A^T)), without the O x I product
        update = torch.trace((b_OR.T @ b_OR) @ (a_RI @ a_RI.T)).clamp(min=0).sqrt()
        rows.append(
            {
                "component": component.id,
                "layer": component.layer,
                "projection": component.projection,
                "norm_a": float(a_RI.norm()),
                "norm_b": float(b_OR.norm()),
                "norm_update": adapter.scale * float(update),
            }
        )
    return rows

"""Checkpoints on disk: a PEFT folder for the adapter, a transformers folder for the full finetune."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from resources.artifact import Artifact
from resources.columns import required
from resources.errors import BadInput

if TYPE_CHECKING:
    from resources.adapters import Adapter

CURVE = "loss_curve.parquet"
"""One row per optimiser step; not there for a published checkpoint."""
CURVE_SCHEMA = pa.schema(
    [
        required("step", pa.int32(), "optimiser step, from 1"),
        required("epoch", pa.int32(), "pass over the rollouts, from 1"),
        required("loss", pa.float64(), "cross-entropy, mean over the assistant's tokens of the step, nats"),
        required("learning_rate", pa.float64(), "used by this step"),
        required("grad_norm", pa.float64(), "before clipping"),
        required("tokens", pa.int64(), "computed so far"),
    ]
)
NORMS = pa.schema(
    [
        required("component", pa.string(), "L3.gate_proj"),
        required("layer", pa.int64(), "of the component, from 0"),
        required("projection", pa.string(), "adapted matrix"),
        required("norm_a", pa.float64(), "Frobenius norm of A"),
        required("norm_b", pa.float64(), "Frobenius norm of B"),
        required("norm_update", pa.float64(), "Frobenius norm of scale * B @ A"),
    ]
)
"""Of the table of a LoRA, which is made when it is asked for."""
SCHEMAS = {
    "lora_checkpoint": {CURVE: CURVE_SCHEMA, "table()": NORMS},
    "full_finetune_checkpoint": {CURVE: CURVE_SCHEMA},
}
"""Asset -> file, or what makes the table -> its columns."""


@dataclass(frozen=True, repr=False)
class LoraCheckpoint(Artifact):
    """A PEFT adapter; the folder itself is what PEFT and vLLM load."""

    adapter: "Adapter"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an artifact folder.

        Raises:
            BadInput: when it holds no adapter that this project reads.
        """
        from resources.adapters import Adapter

        return cls(path, Adapter.open(path))

    def table(self) -> pa.Table:
        """One row per component: norms of A, B and the update, see `NORMS`."""
        return pa.Table.from_pylist(component_norms(self.adapter), NORMS)

    def curve(self) -> pa.Table | None:
        """The loss curve; None for a published adapter."""
        return read_curve(self.path)


class FullFinetuneCheckpoint(Artifact):
    """A finetuned model; the folder itself is what transformers and vLLM load."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an artifact folder.

        Raises:
            BadInput: when it holds no transformers model.
        """
        if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
            raise BadInput(f"{path} is no transformers model: it needs config.json and safetensors")
        return cls(path)

    def table(self) -> pa.Table:
        """The loss curve; empty for a published model."""
        curve = read_curve(self.path)
        return CURVE_SCHEMA.empty_table() if curve is None else curve


def read_curve(folder: Path) -> pa.Table | None:
    """The loss curve of a training, if there was one."""
    return pq.read_table(folder / CURVE) if (folder / CURVE).is_file() else None


def component_norms(adapter: "Adapter") -> list[dict[str, str | int | float]]:
    """Rows of `NORMS`."""
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

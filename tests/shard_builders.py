"""Activation shards for tests of any room: give the states, get a folder that `Shards.open` reads."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from resources.components import components
from resources.shards import SHARD, Shards, StateBatch, write_shard

if TYPE_CHECKING:
    import torch


def build_shards(
    folder: Path,
    states: Mapping[int, np.ndarray],
    columns: tuple[str, ...] | None = None,
    tokens: Mapping[int, np.ndarray] | None = None,
    rollouts_per_shard: int = 4,
    row_group_rows: int = 32,
    fingerprint: str = "test",
) -> Path:
    """Write `states` (rollout_id -> [tokens, columns]) as shards with statistics.

    Columns default to the components of enough layers (7 each), else `L0.0`, `L0.1`, ...; token ids to 0, 1, 2, ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    width = next(iter(states.values())).shape[1]
    columns = columns or _columns(width)
    rollouts = sorted(states)
    for shard, start in enumerate(range(0, len(rollouts), rollouts_per_shard)):
        mine = rollouts[start : start + rollouts_per_shard]
        lengths = [len(states[rollout]) for rollout in mine]
        batch = StateBatch(
            np.repeat(np.array(mine, np.int32), lengths),
            np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            np.concatenate(
                [
                    np.arange(length, dtype=np.int32) if tokens is None else tokens[rollout].astype(np.int32)
                    for rollout, length in zip(mine, lengths, strict=True)
                ]
            ),
            np.concatenate([states[rollout].astype(np.float16) for rollout in mine]),
        )
        write_shard(folder / SHARD.format(shard), batch, columns, fingerprint, row_group_rows)
    write_statistics(folder)
    return folder


def write_statistics(folder: Path) -> None:
    """Count and summarise the shards of a folder, as capture does."""
    from assets.activations.artifact import STATISTICS_FILE
    from assets.activations.statistics import count_values, summarise

    shards = Shards.open(folder)
    pq.write_table(summarise(shards.columns, count_values(shards)), folder / STATISTICS_FILE)


def _columns(width: int) -> tuple[str, ...]:
    if width % 7 == 0:
        return tuple(component.id for component in components(width // 7))
    return tuple(f"L0.{neuron}" for neuron in range(width))


def build_dataset(folder: Path, tokens: Mapping[int, np.ndarray], prompt_tokens: int = 3) -> Path:
    """An `s1k_dataset` of given token ids; each token reads `a`; the first are the user's, without loss."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from assets.dataset.artifact import ROLLOUT_SCHEMA, ROLLOUTS, TOKEN_SCHEMA, TOKENS

    folder.mkdir(parents=True, exist_ok=True)
    rollouts = [
        {"rollout_id": r, "question": "q", "solution": "", "text": "a" * len(ids), "n_tokens": len(ids), "n_cut": 0}
        for r, ids in sorted(tokens.items())
    ]
    rows = [
        {
            "rollout_id": r,
            "position": position,
            "token_id": int(token),
            "start": position,
            "end": position + 1,
            "role": 1 if position < prompt_tokens else 2,
            "loss": position >= prompt_tokens,
        }
        for r, ids in sorted(tokens.items())
        for position, token in enumerate(ids)
    ]
    pq.write_table(pa.Table.from_pylist(rollouts, schema=ROLLOUT_SCHEMA), folder / ROLLOUTS)
    pq.write_table(pa.Table.from_pylist(rows, schema=TOKEN_SCHEMA), folder / TOKENS)
    return folder


def states_seen(adapted: "torch.nn.Module", token_ids: "torch.Tensor") -> "torch.Tensor":
    """[T, 14]: what plain hooks see on every component's `lora_A` for one rollout."""
    import torch

    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, _module: torch.nn.Module, _inputs: object, out: torch.Tensor) -> None:
        seen[name] = out[0, :, 0]

    handles = []
    for component in components(2):
        lora_A = adapted.get_submodule(f"base_model.model.{component.module}.lora_A.default")
        handles.append(lora_A.register_forward_hook(partial(keep, component.id)))
    with torch.no_grad():
        adapted(input_ids=token_ids[None])
    for handle in handles:
        handle.remove()
    return torch.stack([seen[component.id] for component in components(2)], dim=1)

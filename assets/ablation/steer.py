"""`steering_effects`: push one unit harder and harder, and measure what the model predicts and says."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, JsonValue

from assets.ablation.activity import firings
from assets.ablation.adapted import AdaptedModel
from assets.ablation.artifact import CONTINUATION_SCHEMA, CONTINUATIONS, STEERING, STEERING_SCHEMA
from assets.ablation.config import SteeringConfig
from assets.ablation.continuations import Row, continue_rows
from assets.ablation.doses import Dose, choose_targets, dose_edit, doses
from assets.ablation.edits import Edit
from assets.ablation.figures import save_dose_figures
from assets.ablation.measure import Sums, effect, measure
from assets.ablation.outcomes import Continuation, count_words, is_correct, summarise
from assets.ablation.passages import Passage, draw_rollouts, open_passages
from assets.ablation.share import sums_table, work_through
from assets.dataset.artifact import S1kDataset
from assets.sae.artifact import Sae
from resources.chat import END_TOKENS
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.models import ModelConfig, load_tokenizer
from resources.progress import Progress
from resources.ranks import Rank
from resources.shards import Shards


class SteeringMetrics(BaseModel, frozen=True):
    """What the UI shows."""

    units: list[str]
    n_rollouts: int
    n_tokens: int
    n_continuations: int
    doses: list[dict[str, JsonValue]]
    """The dose curves, short."""


@dataclass(frozen=True)
class Prompt:
    """A problem of the dataset, up to the token that predicts the assistant's first one."""

    rollout_id: int
    ids: np.ndarray
    solution: str


@dataclass(frozen=True)
class Ask:
    """One continuation: which dose, which problem, greedy (sample None) or a numbered sample."""

    dose: int
    prompt: int
    sample: int | None

    @property
    def decoding(self) -> str:
        """greedy or sampled."""
        return "greedy" if self.sample is None else "sampled"


def steer(
    *,
    model: ModelConfig,
    steering: SteeringConfig,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    activation_shards: Path,
    batchtopk_sae: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> SteeringMetrics:
    """Measure every dose on the drawn rollouts and in continuations of the drawn problems (paper, steering).

    The problems are training questions: accuracy shows what a dose breaks against factor 0, not generalisation.

    Raises:
        BadInput: for units that cannot be steered, or logits that are not finite.
    """
    dataset = S1kDataset.open(s1k_dataset)
    passages = open_passages(
        dataset,
        num_rollouts=steering.num_rollouts,
        max_tokens=steering.max_tokens,
        seed=steering.seed,
        positions="assistant",
    )
    adapted = AdaptedModel.load(model, lora_checkpoint, Rank.here().device(compute.device))
    sae, shards = Sae.open(batchtopk_sae), Shards.open(activation_shards)
    found = [firings(sae, shards, passage) for passage in passages] if steering.reads_latents else []
    curve = doses(choose_targets(steering, adapted, activation_shards, sae, found), steering)
    edits = [dose_edit(dose, steering, adapted, steering.seed) for dose in curve]
    sums = _measure_doses(adapted, passages, edits, scratch, progress, compute.tokens_per_batch)
    said = _continue_all(model, steering, dataset, adapted, curve, edits, scratch, progress)
    rows = _rows(curve, sums, said)
    if Rank.here().index == 0:
        pq.write_table(pa.Table.from_pylist(rows, schema=STEERING_SCHEMA), out / STEERING)
        pq.write_table(pa.Table.from_pylist(said, schema=CONTINUATION_SCHEMA), out / CONTINUATIONS)
        save_dose_figures(rows, steering.mode, out)
    return _metrics(rows, said)


def _measure_doses(
    model: AdaptedModel,
    passages: Sequence[Passage],
    edits: Sequence[Edit | None],
    scratch: Path,
    progress: Progress,
    tokens_per_batch: int,
) -> list[list[Sums]]:
    """[dose][passage]; steering acts from the token that predicts the assistant's first one."""

    def make(i: int) -> pa.Table:
        passage = passages[i]
        on_T1 = torch.from_numpy(passage.predicts_reply_T)[:, None].to(model.device)
        here = [None if edit is None else replace(edit, on_T1=on_T1) for edit in edits]
        return sums_table(measure(model, passage, here, tokens_per_batch))

    names = [f"{passage.rollout_id:06d}" for passage in passages]
    tables = work_through(names, make, scratch / "doses", progress, "measuring doses")
    per_passage = [[Sums(**row) for row in table.to_pylist()] for table in tables]
    return [list(of_dose) for of_dose in zip(*per_passage, strict=True)]


def _continue_all(
    model: ModelConfig,
    steering: SteeringConfig,
    dataset: S1kDataset,
    adapted: AdaptedModel,
    curve: Sequence[Dose],
    edits: Sequence[Edit | None],
    scratch: Path,
    progress: Progress,
) -> list[dict[str, object]]:
    """Rows of `continuations.parquet`, in order of dose, problem and sample; equal doses are continued once."""
    if not steering.num_problems:
        return []
    prompts = [_prompt(dataset, r) for r in draw_rollouts(dataset.rollout_ids, steering.num_problems, steering.seed)]
    same = _first_of_equal(edits)
    samples = (None, *range(steering.samples))
    asks = [Ask(d, p, s) for d in sorted(set(same)) for p in range(len(prompts)) for s in samples]
    batches = [asks[i : i + steering.batch_rows] for i in range(0, len(asks), steering.batch_rows)]
    tokenizer = load_tokenizer(model)
    vocabulary = tokenizer.get_vocab()
    ends = frozenset(vocabulary[token] for token in END_TOKENS if token in vocabulary)

    def make(i: int) -> pa.Table:
        rows = [_row_of(ask, prompts, edits, steering) for ask in batches[i]]
        new = continue_rows(
            adapted, rows, max_new_tokens=steering.max_new_tokens, temperature=steering.temperature, ends=ends
        )
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        told = zip(batches[i], new, texts, strict=True)
        read = [_read(ask, prompts[ask.prompt], ids, text, ends, steering.words) for ask, ids, text in told]
        return pa.Table.from_pylist([_about(curve[0]) | row for row in read], schema=CONTINUATION_SCHEMA)

    names = [f"{i:06d}" for i in range(len(batches))]
    tables = work_through(names, make, scratch / "continuations", progress, "continuing")
    told = [row for table in tables for row in table.to_pylist()]
    by_dose = {d: [row for ask, row in zip(asks, told, strict=True) if ask.dose == d] for d in set(same)}
    return [row | _about(dose) for dose, d in zip(curve, same, strict=True) for row in by_dose[d]]


def _prompt(dataset: S1kDataset, r: int) -> Prompt:
    reply = np.flatnonzero(dataset.loss_mask(r))
    if not len(reply) or reply[0] < 2:
        raise BadInput(f"rollout {r} has no question before its answer: drop it from the dataset")
    return Prompt(r, dataset.token_ids(r)[: reply[0]], dataset.solution(r))


def _first_of_equal(edits: Sequence[Edit | None]) -> list[int]:
    """For each dose the first one with the same effect: all that change nothing are one."""
    nothing = next((i for i, edit in enumerate(edits) if edit is None), 0)
    return [nothing if edit is None else i for i, edit in enumerate(edits)]


def _row_of(ask: Ask, prompts: Sequence[Prompt], edits: Sequence[Edit | None], steering: SteeringConfig) -> Row:
    prompt = prompts[ask.prompt]
    seed = None if ask.sample is None else steering.seed + 1_000_003 * (prompt.rollout_id + 1) + ask.sample
    return Row(prompt.ids, edits[ask.dose], seed)


def _read(
    ask: Ask, prompt: Prompt, ids: Sequence[int], text: str, ends: frozenset[int], words: Sequence[str]
) -> dict[str, object]:
    about = Continuation(
        rollout_id=prompt.rollout_id,
        n_tokens=len(ids),
        n_backtracking=count_words(text, words),
        correct=is_correct(text, prompt.solution),
        truncated=ids[-1] not in ends,
    )
    return {**asdict(about), "decoding": ask.decoding, "sample": ask.sample or 0, "text": text}


def _about(dose: Dose) -> dict[str, object]:
    return {"unit": dose.target.unit, "direction": dose.direction, "factor": dose.factor}


def _rows(
    curve: Sequence[Dose], sums: Sequence[Sequence[Sums]], said: Sequence[dict[str, object]]
) -> list[dict[str, object]]:
    heard: dict[tuple, dict[object, list[Continuation]]] = {}
    for row in said:
        by_decoding = heard.setdefault((row["unit"], row["direction"], row["factor"]), {})
        read = {name: row[name] for name in Continuation.__dataclass_fields__}
        by_decoding.setdefault(row["decoding"], []).append(Continuation(**read))  # pyright: ignore[reportArgumentType]
    rows = []
    for dose, of_dose in zip(curve, sums, strict=True):
        about = _about(dose) | {"p99": dose.target.p99} | effect(of_dose)
        told = heard.get((dose.target.unit, dose.direction, dose.factor), {})
        if not told:
            rows.append(about)
        rows += [about | {"decoding": decoding} | summarise(found) for decoding, found in told.items()]
    return [{name: row.get(name) for name in STEERING_SCHEMA.names} for row in rows]


def _metrics(rows: Sequence[dict], said: Sequence[dict]) -> SteeringMetrics:
    columns = ("unit", "direction", "factor", "kl_mean", "decoding", "backtracking", "length", "accuracy")
    return SteeringMetrics(
        units=list(dict.fromkeys(row["unit"] for row in rows)),
        n_rollouts=rows[0]["n_rollouts"],
        n_tokens=rows[0]["n_tokens"],
        n_continuations=len(said),
        doses=[{name: row[name] for name in columns} for row in rows],
    )

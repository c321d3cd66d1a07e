"""The adapted model, run half a layer at a time with a different edit of the adapter in every row of the batch.

In a float32 model the adapter is added to the weights once, and a hook puts right what an edit changes in its rows. In
bfloat16 that sum would round the adapter away, so hooks follow PEFT's arithmetic: base(x) + scale * B(A(x)), A and B in
float32, on a GPU as sums of bfloat16 numbers. Either way only products of the adapter's rank are added to the base
model's cost.
Shapes: N rows, K edited rows, T tokens, D hidden, I inputs and O outputs of an adapted matrix, R rank.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.nn.functional as F

from assets.ablation.edits import Edit
from resources.adapters import Adapter
from resources.components import WRITERS, Component
from resources.errors import BadInput
from resources.models import ModelConfig, load_base
from resources.narrow_products import NarrowProducts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


CHANGED_TOKENS = 4096
"""Tokens of edited rows that are changed at once: bounds the copies that this needs."""


class _Changes(NamedTuple):
    """What is done to one component, in K rows of the batch."""

    row_K: torch.Tensor
    gain_K11: torch.Tensor
    shift_KT1: torch.Tensor
    """[K, 1 or T, 1]."""
    on_KT1: torch.Tensor | None
    write_KO: torch.Tensor | None

    def part(self, here: slice) -> "_Changes":
        """The same for some of the K rows."""
        return _Changes(*[None if field is None else field[here] for field in self])  # pyright: ignore[reportArgumentType]

    def written_KTO(self) -> torch.Tensor | float:
        """[K, 1 or T, O]: what is added to the matrix's output beside the adapter."""
        if self.write_KO is None:
            return 0.0
        return self.write_KO[:, None] if self.on_KT1 is None else self.on_KT1 * self.write_KO[:, None]


class _Worn(NamedTuple):
    """One component's matrices, in at least float32."""

    A_RI: torch.Tensor
    B_RO: torch.Tensor
    """Times the adapter's scale."""
    narrow: NarrowProducts | None
    """The same for a bfloat16 model on a GPU."""

    def read(self, x_NTI: torch.Tensor) -> torch.Tensor:
        """A x: [N, T, R]."""
        return _read(x_NTI, self.A_RI) if self.narrow is None else self.narrow.read(x_NTI)

    def add_update_(self, out_NTO: torch.Tensor, state_NTR: torch.Tensor) -> None:
        """Adds scale x B(state)."""
        if self.narrow is not None:
            self.narrow.add_update_(out_NTO, state_NTR)
            return
        for state_NT1, b_O in zip(state_NTR.split(1, dim=-1), self.B_RO, strict=True):
            out_NTO.addcmul_(state_NT1, b_O)


Prepared = Mapping[Component, _Changes]
"""Edits, row by row, as tensors per component."""


class AdaptedModel:
    """A frozen Qwen2 wearing a LoRA adapter whose activations can be edited per row."""

    def __init__(self, base: "PreTrainedModel", adapter: Adapter) -> None:
        """Hooks are put on the matrices of components whose B is not 0; the others never do anything.

        Raises:
            BadInput: when the adapter's shapes belong to another base model, or its attention is not full.
        """
        if "sliding_attention" in getattr(base.config, "layer_types", ()):
            raise BadInput("models with sliding-window attention are not supported: use Qwen2.5")
        base.set_attn_implementation("sdpa")
        self.base = base
        self.adapter = adapter
        self.device = base.device
        self.dtype = base.dtype
        self._layers = base.model.layers
        self._changes: Prepared = {}
        self._worn: dict[Component, _Worn] = {}
        self._states: dict[Component, torch.Tensor] | None = None
        self.live = frozenset(c for c in adapter.components if bool(adapter.B[c].any()))
        """Components whose B is not 0."""
        for component in sorted(self.live):
            self._wear(component)

    @classmethod
    def load(cls, model: ModelConfig, adapter: Path, device: str) -> "AdaptedModel":
        """From the model section and a PEFT folder."""
        return cls(load_base(model, device), Adapter.open(adapter))

    @property
    def num_points(self) -> int:
        """Two per layer."""
        return 2 * len(self._layers)

    @property
    def head_VD(self) -> torch.Tensor:
        """The unembedding matrix."""
        return self.base.lm_head.weight

    def write_vector(self, component: Component) -> torch.Tensor:
        """What one unit of a component's activation adds to its matrix's output: scale x B, [O, R], float32."""
        return self.adapter.scale * self.adapter.B[component].to(self.device, torch.float32)

    def prepare(self, edits: Sequence[Edit]) -> Prepared:
        """Row n runs under `edits[n]`; rows beyond them run unedited."""
        rows: dict[Component, list[int]] = defaultdict(list)
        for row, edit in enumerate(edits):
            for component in edit.changes:
                rows[component].append(row)
        return {c: self._stack(c, [edits[row] for row in mine], mine) for c, mine in rows.items()}

    @contextmanager
    def editing(self, prepared: Prepared) -> Iterator[None]:
        """Every pass in this block runs under these edits, and no others."""
        before = self._changes
        self._changes = prepared
        try:
            yield
        finally:
            self._changes = before

    @contextmanager
    def reading_writers(self) -> Iterator[dict[Component, torch.Tensor]]:
        """Fills the dict with the activations [N, T, R] of the components that write into the residual stream."""
        self._states = {}
        try:
            yield self._states
        finally:
            self._states = None

    def write_change(self, component: Component, edit: Edit, state_1TR: torch.Tensor) -> torch.Tensor:
        """What an edit adds to the output of a component's matrix that had this activation: [T, O]."""
        return _difference_KTO(state_1TR, self._stack(component, [edit], [0]), self._worn[component].B_RO)[0]

    def embed(self, ids_NT: torch.Tensor) -> torch.Tensor:
        """The residual stream that enters point 0: [N, T, D]."""
        return self.base.model.embed_tokens(ids_NT)

    def rotary(self, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary cosines and sines of positions 0 to T - 1, as `advance` takes them."""
        position_ids_1T = torch.arange(num_tokens, device=self.device)[None]
        return self.base.model.rotary_emb(torch.empty(0, device=self.device, dtype=self.dtype), position_ids_1T)

    def advance(self, point: int, h_NTD: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The residual stream after one point, from the stream that enters it."""
        layer = self._layers[point // 2]
        if point % 2:
            x_NTD, mlp = layer.post_attention_layernorm(h_NTD), layer.mlp
            # Qwen2's MLP in place: the same bits, without two tensors of the widest kind.
            gated_NTI = F.silu(mlp.gate_proj(x_NTD), inplace=True).mul_(mlp.up_proj(x_NTD))
            return mlp.down_proj(gated_NTI).add_(h_NTD)
        out_NTD, _ = layer.self_attn(layer.input_layernorm(h_NTD), position_embeddings=rotary, attention_mask=None)
        return out_NTD.add_(h_NTD)

    def finish(self, h_NTD: torch.Tensor) -> torch.Tensor:
        """What the unembedding reads, from the stream after the last point."""
        return self.base.model.norm(h_NTD)

    def _wear(self, component: Component) -> None:
        matrix = cast("torch.nn.Linear", self.base.get_submodule(component.module))
        precision = torch.promote_types(self.dtype, torch.float32)
        A_RI = self.adapter.A[component].to(self.device, precision)
        B_RO = self.adapter.B[component].to(self.device, precision).T.contiguous() * self.adapter.scale
        shape = tuple(matrix.weight.shape)
        if shape != (B_RO.shape[1], A_RI.shape[1]):
            raise BadInput(
                f"{component.id} of the adapter is {B_RO.shape[1]} x {A_RI.shape[1]} but the base model's matrix is "
                f"{shape[0]} x {shape[1]}: the adapter belongs to another model"
            )
        is_narrow = self.dtype == torch.bfloat16 and self.device.type == "cuda"
        self._worn[component] = _Worn(A_RI, B_RO, NarrowProducts(A_RI, B_RO) if is_narrow else None)
        if self.dtype == precision:
            merged_OI = torch.addmm(matrix.weight, B_RO.T, A_RI)
            matrix.weight = torch.nn.Parameter(merged_OI, requires_grad=False)
            matrix.register_forward_hook(partial(self._correct, component))
        else:
            matrix.register_forward_hook(partial(self._add, component))

    def _correct(
        self, component: Component, _matrix: torch.nn.Module, args: tuple[torch.Tensor, ...], out_NTO: torch.Tensor
    ) -> torch.Tensor:
        """The weights hold the adapter: edited rows are given the difference."""
        worn, x_NTI = self._worn[component], args[0]
        if self._states is not None and component.projection in WRITERS:
            self._states[component] = _read(x_NTI, worn.A_RI)
        changes = self._changes.get(component)
        if changes is not None:
            for part in _parts(changes, out_NTO.shape[1]):
                state_KTR = _read(x_NTI[part.row_K], worn.A_RI)
                out_NTO[part.row_K] += _difference_KTO(state_KTR, part, worn.B_RO)
        return out_NTO

    def _add(
        self, component: Component, _matrix: torch.nn.Module, args: tuple[torch.Tensor, ...], out_NTO: torch.Tensor
    ) -> torch.Tensor:
        """The weights are the base model's: every row is given the adapter, edited or not."""
        worn = self._worn[component]
        state_NTR = worn.read(args[0])
        if self._states is not None and component.projection in WRITERS:
            self._states[component] = state_NTR.clone()
        changes = self._changes.get(component)
        if changes is not None:
            state_NTR[changes.row_K] = _changed(state_NTR[changes.row_K], changes)
        worn.add_update_(out_NTO, state_NTR)
        if changes is not None and changes.write_KO is not None:
            for part in _parts(changes, out_NTO.shape[1]):
                out_NTO[part.row_K] += part.written_KTO()
        return out_NTO

    def _stack(self, component: Component, edits: Sequence[Edit], rows: Sequence[int]) -> _Changes:
        changes = [edit.changes[component] for edit in edits]
        precision = torch.promote_types(self.dtype, torch.float32)

        def stacked(values: Sequence[torch.Tensor | float]) -> torch.Tensor:
            return torch.stack(
                torch.broadcast_tensors(
                    *[torch.as_tensor(v, dtype=precision, device=self.device).reshape(-1, 1) for v in values]
                )
            )

        on = [edit.on_T1 for edit in edits]
        write = [change.write_O for change in changes]
        width = self.adapter.B[component].shape[0]
        nothing_O = torch.zeros(width, device=self.device)
        return _Changes(
            row_K=torch.tensor(rows, device=self.device),
            gain_K11=stacked([change.gain for change in changes]),
            shift_KT1=stacked([change.shift for change in changes]),
            on_KT1=None if all(o is None for o in on) else stacked([1.0 if o is None else o for o in on]).bool(),
            write_KO=None
            if all(w is None for w in write)
            else torch.stack([nothing_O if w is None else w for w in write]),
        )


def _read(x_NTI: torch.Tensor, A_RI: torch.Tensor) -> torch.Tensor:
    """A x in A's precision, row by row where that needs a copy: [N, T, R]."""
    if x_NTI.dtype == A_RI.dtype:
        return F.linear(x_NTI, A_RI)
    return torch.stack([F.linear(x_TI.to(A_RI.dtype), A_RI) for x_TI in x_NTI])


def _changed(state_KTR: torch.Tensor, changes: _Changes) -> torch.Tensor:
    new_KTR = state_KTR * changes.gain_K11 + changes.shift_KT1
    return new_KTR if changes.on_KT1 is None else torch.where(changes.on_KT1, new_KTR, state_KTR)


def _difference_KTO(state_KTR: torch.Tensor, changes: _Changes, B_RO: torch.Tensor) -> torch.Tensor:
    """What the changes add to the output of a matrix that wears the unchanged adapter."""
    return (_changed(state_KTR, changes) - state_KTR) @ B_RO + changes.written_KTO()


def _parts(changes: _Changes, num_tokens: int) -> Iterator[_Changes]:
    step = max(1, CHANGED_TOKENS // num_tokens)
    for first in range(0, len(changes.row_K), step):
        yield changes.part(slice(first, first + step))

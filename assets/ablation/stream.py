"""Edited passes that cost only what differs: each starts from the full run's residual stream at its first change.

A batch grows on its way up: a row joins at its entry point. The full run's stream there is kept on the device, spilled
to the host, or made again point by point, which costs one more full pass in all because batches ask in rising order.
Shapes: N rows, T tokens, D hidden.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from assets.ablation.adapted import AdaptedModel
from assets.ablation.edits import Edit
from resources.components import Component

Keep = Literal["device", "host", "recompute"]


class FullStream:
    """The residual stream of the unedited run at the points where edits begin."""

    def __init__(self, model: AdaptedModel, ids_T: torch.Tensor, points: Sequence[int], keep: Keep) -> None:
        """Runs the model once; `points`: where the stream will be asked for, with `at`."""
        self.model = model
        self.rotary = model.rotary(len(ids_T))
        self._ids_1T = ids_T.to(model.device)[None]
        self._kept: dict[int, torch.Tensor] = {}
        self._states: dict[Component, torch.Tensor] = {}
        wanted = frozenset(points) if keep != "recompute" else frozenset()
        place = "cpu" if keep == "host" else model.device
        self._restart()
        for point in range(model.num_points + 1):
            if point in wanted:
                self._kept[point] = self._h_1TD.to(place)
            if point < model.num_points:
                self._step()
        self.final_TD = model.finish(self._h_1TD)[0]
        """What the unembedding reads in the unedited run."""
        if keep == "recompute":
            self._restart()
        else:
            del self._h_1TD

    def at(self, point: int) -> torch.Tensor:
        """The stream that enters `point`: [1, T, D] on the model's device."""
        if point in self._kept:
            return self._kept[point].to(self.model.device)
        if point < self._point:
            self._restart()
        while self._point < point:
            self._step()
        return self._h_1TD

    def join(self, point: int, edits: Sequence[Edit]) -> torch.Tensor:
        """What enters `point` under edits whose entry it is: [N, T, D]."""
        fresh_NTD = self.at(point).expand(len(edits), -1, -1)
        if not any(edit.writes for edit in edits):
            return fresh_NTD
        fresh_NTD = fresh_NTD.clone()
        for h_TD, edit in zip(fresh_NTD, edits, strict=True):
            for component in edit.writes:
                h_TD += self.model.write_change(component, edit, self._states[component])
        return fresh_NTD

    def _restart(self) -> None:
        self._point = 0
        self._h_1TD = self.model.embed(self._ids_1T)

    def _step(self) -> None:
        with self.model.editing({}), self.model.reading_writers() as states:
            self._h_1TD = self.model.advance(self._point, self._h_1TD, self.rotary)
        self._states.update(states)
        self._point += 1


def run_edited(stream: FullStream, edits: Sequence[Edit]) -> torch.Tensor:
    """What the unembedding reads under each edit: [N, T, D]; `edits` in rising order of entry."""
    model = stream.model
    waiting = list(edits)
    h_NTD: torch.Tensor | None = None
    with model.editing(model.prepare([edit.rest for edit in edits])):
        for point in range(edits[0].entry, model.num_points + 1):
            joining = [edit for edit in waiting if edit.entry == point]
            if joining:
                del waiting[: len(joining)]
                fresh_NTD = stream.join(point, joining)
                h_NTD = fresh_NTD if h_NTD is None else torch.cat([h_NTD, fresh_NTD])
            assert h_NTD is not None
            if point < model.num_points:
                h_NTD = model.advance(point, h_NTD, stream.rotary)
    assert h_NTD is not None
    return model.finish(h_NTD)


def batched(edits: Sequence[Edit], rows: int) -> Iterator[Sequence[Edit]]:
    """Neighbouring edits in batches of at most `rows`."""
    for start in range(0, len(edits), rows):
        yield edits[start : start + rows]

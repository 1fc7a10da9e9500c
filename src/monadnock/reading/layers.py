"""How alike states are: of one token along the layers, and of different tokens within a layer (wray2023, section 5)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monadnock.models import Adapter
from monadnock.models.observe import States, Watcher
from monadnock.models.start import run_layers
from monadnock.sites import Site, Stream

GAPS = (1, 5, 15)
NEIGHBOURS = {1: "neighbours", 2: "next neighbours"}


class _Sums:
    """Count, sum and sum of squares of what goes by."""

    def __init__(self) -> None:
        self.values = torch.zeros(3, dtype=torch.float64)

    def add(self, products: Tensor) -> None:
        products = products.double()
        self.values += torch.stack(
            [torch.tensor(float(products.numel())), products.sum().cpu(), products.square().sum().cpu()]
        )

    @property
    def mean(self) -> float:
        return float(self.values[1] / self.values[0]) if self.values[0] else math.nan

    @property
    def deviation(self) -> float | None:
        if not self.values[0]:
            return None
        return math.sqrt(max(float(self.values[2] / self.values[0]) - self.mean**2, 0.0))


def state_similarity(
    adapter: Adapter, windows: Tensor, step: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Measure how alike states are in one pass over a text: rows of the table `state_similarity`.

    States are L2-normalised; of a window only those of the last 16 layers are there at once, and no product of all
    tokens with all others is made. The first position is left out: its massive activation is like nothing else.

    Args:
        adapter: the model.
        windows: token ids, [window, seq], of three tokens at least.
        step: called after each window.

    Example:
        >>> rows = state_similarity(adapter, windows.ids)  # doctest: +SKIP
    """
    later = {(layer, gap): _Sums() for gap in GAPS for layer in range(-1, adapter.num_layers - gap)}
    near = {(layer, gap): _Sums() for gap in NEIGHBOURS for layer in range(-1, adapter.num_layers)}
    pairs = {layer: _Sums() for layer in range(-1, adapter.num_layers)}
    held: dict[int, Tensor] = {}

    def watch(layer: int) -> Watcher:
        def update(batch: States) -> None:
            states = F.normalize(batch.values[1:].float(), dim=1)  # [seq - 1, d_model]
            for gap in GAPS:
                if layer - gap in held:
                    later[layer - gap, gap].add((held[layer - gap].to(states.device) * states).sum(1))
            for gap in NEIGHBOURS:
                near[layer, gap].add((states[:-gap] * states[gap:]).sum(1))
            count = len(states)
            total = states.double().sum(0)
            if count > 1:
                pairs[layer].add((total.dot(total) - states.double().square().sum()) / (count * (count - 1)))
            held[layer] = states
            held.pop(layer - max(GAPS), None)

        return update

    sites = {Site(Stream.RESIDUAL, layer): watch(layer) for layer in range(-1, adapter.num_layers)}
    for ids in windows:
        held.clear()
        run_layers(adapter, ids, sites)
        step()
    steps = [later[layer, 1].mean for layer in range(-1, adapter.num_layers - 1)]
    rows = []
    for (layer, gap), sums in later.items():
        predicted = math.prod(steps[layer + 1 : layer + 1 + gap])
        rows.append(_row(layer, "later", gap, sums.mean, sums.deviation, predicted))
    rows += [_row(layer, NEIGHBOURS[gap], 0, sums.mean, sums.deviation) for (layer, gap), sums in near.items()]
    rows += [_row(layer, "all pairs", 0, sums.mean) for layer, sums in pairs.items()]
    return [row for row in rows if not math.isnan(row["mean"])]


def _row(
    layer: int, relation: str, gap: int, mean: float, deviation: float | None = None, predicted: float | None = None
) -> dict[str, Any]:
    place = {"layer": layer, "relation": relation, "gap": gap}
    return place | {"mean": mean, "deviation": deviation, "predicted": predicted}

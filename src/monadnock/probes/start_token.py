"""Massive weights, super weights and norm gains, read off the start token fed alone (oh2024)."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from monadnock.models import Adapter
from monadnock.probes.base import Ask, Evidence
from monadnock.probes.start import (
    start_asks,
    start_intermediate,
    start_residual,
    start_state,
    text_median,
    text_medians,
)
from monadnock.sites import Stream
from monadnock.stats import Preferred, is_massive, massive_layer
from monadnock.thresholds import ALIVE_RATIO, SUN2024_MAGNITUDE, SUN2024_RATIO

ROWS = 50  # massive weights listed
TRACED = 8  # entries listed of every layer's start state
SUPER = 20  # super weights listed
GAINS = 4  # gains listed of every norm


class StartToken:
    """Follow the start token alone through the layers: which layer, rows and features are massive, and since when."""

    name: ClassVar[str] = "start_token"
    tables: ClassVar[tuple[str, ...]] = (
        "start_states",
        "massive_weights",
        "super_weights",
        "lifecycles",
        "norm_gains",
    )
    thresholds: ClassVar[dict[str, float]] = {
        "sun2024.median_ratio": SUN2024_RATIO,
        "sun2024.magnitude": SUN2024_MAGNITUDE,
        "monadnock.alive_ratio": ALIVE_RATIO,
    }

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for the start token's states, and for the text's medians to compare them with."""
        return start_asks(router=adapter.family.router is not None)

    def reads(self, evidence: Evidence, layer: int) -> list[dict]:
        """Return the rows of super_weights that a layer would have."""
        if not 0 <= layer < evidence.adapter.num_layers:
            return []
        inner = start_intermediate(evidence, layer)
        row = is_massive(start_state(evidence, Stream.RESIDUAL, layer), text_median(evidence, Stream.RESIDUAL, layer))
        column = is_massive(inner.values, text_median(evidence, Stream.DOWN_PROJ_INPUT, layer))
        return _super_weights(evidence.adapter, layer, inner, row.nonzero().flatten(), column.nonzero().flatten())

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill start_states, massive_weights, super_weights, lifecycles and norm_gains."""
        num_layers = evidence.adapter.num_layers
        residual = start_residual(evidence)  # [layer, d_model]
        inner = [start_intermediate(evidence, layer) for layer in range(num_layers)]
        residual_medians = text_medians(evidence, Stream.RESIDUAL)
        massive = is_massive(residual, residual_medians)  # [layer, d_model]
        layer = massive_layer(residual, torch.stack([state.values for state in inner]))
        medians = text_medians(evidence, Stream.DOWN_PROJ_INPUT)
        features = massive.any(0).nonzero().flatten()
        return {
            "start_states": _traced(Stream.RESIDUAL, residual, [None] * num_layers)
            + _traced(
                Stream.DOWN_PROJ_INPUT,
                torch.stack([state.values for state in inner]),
                [state.expert for state in inner],
            ),
            "massive_weights": _massive_weights(layer, inner[layer], medians[layer]),
            "super_weights": evidence.read(self, layer),
            "lifecycles": _lifecycles(residual, is_massive(residual, residual_medians, ALIVE_RATIO), massive),
            "norm_gains": _norm_gains(evidence.adapter, features),
        }


def _traced(stream: Stream, values: Tensor, experts: list[int | None]) -> list[dict]:
    top = values.abs().topk(min(TRACED, values.shape[1]), dim=1).indices
    return [
        {
            "stream": stream.value,
            "layer": layer,
            "expert": experts[layer],
            "rank": rank,
            "feature": int(feature),
            "value": float(values[layer, feature]),
        }
        for layer in range(len(values))
        for rank, feature in enumerate(top[layer], start=1)
    ]


def _massive_weights(layer: int, inner: Preferred, median: Tensor) -> list[dict]:
    top = inner.values.abs().topk(min(ROWS, len(inner.values)))
    massive = is_massive(inner.values, median)
    return [
        {
            "layer": layer,
            "expert": inner.expert,
            "rank": rank,
            "feature": feature,
            "magnitude": magnitude,
            "massive": bool(massive[feature]),
        }
        for rank, (feature, magnitude) in enumerate(
            zip(top.indices.tolist(), top.values.tolist(), strict=True), start=1
        )
    ]


def _super_weights(adapter: Adapter, layer: int, inner: Preferred, row: Tensor, column: Tensor) -> list[dict]:
    """Rank W_down[i, j] x_j over massive features i of h and massive features j of x_down."""
    if not len(row) or not len(column):
        return []
    whole = adapter.weight(layer, "down", inner.expert).read()
    weight = whole[row.to(whole.device)][:, column.to(whole.device)].float().cpu()
    part = weight * inner.values[column]
    order = part.abs().flatten().topk(min(SUPER, part.numel())).indices.tolist()
    return [
        {
            "layer": layer,
            "expert": inner.expert,
            "rank": rank,
            "row": int(row[place // len(column)]),
            "column": int(column[place % len(column)]),
            "weight": float(weight.flatten()[place]),
            "contribution": float(part.flatten()[place]),
        }
        for rank, place in enumerate(order, start=1)
    ]


def _lifecycles(residual: Tensor, alive: Tensor, massive: Tensor) -> list[dict]:
    """Find the stretches of layers over which each feature lives, and the layers that make and unmake it.

    Args:
        residual: h of the start token, [layer, d_model].
        alive: where a feature lives, [layer, d_model].
        massive: where it is massive, [layer, d_model].
    """
    rows = []
    sizes = torch.nn.functional.pad(residual.abs(), (0, 0, 1, 1))  # [layer + 2, d_model], zero before and after
    for feature in alive.any(0).nonzero().flatten().tolist():
        edges = torch.diff(torch.nn.functional.pad(alive[:, feature].int(), (1, 1)))
        for (birth,), (death,) in zip(edges.eq(1).nonzero().tolist(), edges.eq(-1).nonzero().tolist(), strict=True):
            ends = death < len(residual)
            values = residual[birth:death, feature]
            peak = int(values.abs().argmax())
            steps = torch.diff(sizes[birth : death + 1 + ends, feature])  # what layer birth, birth + 1, ... added
            rows.append(
                {
                    "feature": feature,
                    "birth": birth,
                    "death": death if ends else None,
                    "peak_layer": birth + peak,
                    "peak_value": float(values[peak]),
                    "rise_layer": birth + int(steps[: death - birth].argmax()),
                    "fall_layer": birth + int(steps.argmin()) if float(steps.min()) < 0 else None,
                    "massive": bool(massive[birth:death, feature].any()),
                }
            )
    return sorted(rows, key=lambda row: (-abs(row["peak_value"]), row["birth"]))


def _norm_gains(adapter: Adapter, features: Tensor) -> list[dict]:
    rows = []
    for layer, name, gains in adapter.norms():
        gains = gains.cpu()
        median = float(gains.abs().median())
        top = gains.abs().topk(min(GAINS, len(gains))).indices.tolist()
        massive = [] if name in ("query", "key") else features.tolist()  # those are as wide as a head, or all heads
        rows += [
            {
                "layer": layer,
                "norm": name,
                "feature": feature,
                "gain": float(gains[feature]),
                "ratio": abs(float(gains[feature])) / median if median else None,
                "massive_feature": feature in massive,
            }
            for feature in dict.fromkeys([*top, *massive])
        ]
    return rows

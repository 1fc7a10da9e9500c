"""Trace the start token through every layer: which state makes its massive activation, and which takes it away."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from monadnock.models import Adapter
from monadnock.probes.base import Ask, Evidence
from monadnock.probes.emergence import emergence
from monadnock.probes.start import start_asks, start_intermediate, start_residual, start_state, text_medians
from monadnock.sites import Stream
from monadnock.stats import Beginning, is_massive, massive_layer
from monadnock.thresholds import ALIVE_RATIO, SUN2024_MAGNITUDE, SUN2024_RATIO

_STATES = (
    Stream.ATTN_INPUT,
    Stream.ATTN_OUTPUT,
    Stream.ATTN_UPDATE,
    Stream.MLP_INPUT,
    Stream.MLP_OUTPUT,
    Stream.MLP_UPDATE,
)


class Trace:
    """All states of the start token, layer by layer (oh2024, figure 3a), and who adds what to its large features."""

    name: ClassVar[str] = "trace"
    tables: ClassVar[tuple[str, ...]] = ("trace", "contributions", "emergence")
    thresholds: ClassVar[dict[str, float]] = {
        "sun2024.median_ratio": SUN2024_RATIO,
        "sun2024.magnitude": SUN2024_MAGNITUDE,
        "monadnock.alive_ratio": ALIVE_RATIO,
    }

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for every state of the start token, and for the FFN's input at the first tokens of the text."""
        return [*start_asks(*_STATES, router=adapter.family.router is not None), Ask(Stream.MLP_INPUT, Beginning)]

    def reads(self, evidence: Evidence, layer: int) -> list[dict]:
        """Return the rows of emergence that a layer would have."""
        return emergence(evidence, layer) if 0 <= layer < evidence.adapter.num_layers else []

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill trace, contributions and emergence."""
        residual = start_residual(evidence)
        inner = torch.stack([start_intermediate(evidence, layer).values for layer in range(len(residual))])
        updates = {
            stream: torch.stack([start_state(evidence, stream, layer) for layer in range(len(residual))])
            for stream in (Stream.ATTN_UPDATE, Stream.MLP_UPDATE)
        }
        attention, mlp = updates.values()
        before = torch.cat([residual[:1] - attention[:1] - mlp[:1], residual[:-1]])
        gap = (before + attention + mlp - residual).abs().amax(1)
        largest = torch.stack([before, attention, mlp]).abs().amax((0, 2))  # rounding is that of the largest part
        adds = bool((gap <= 0.02 * largest).all())  # not where a norm stands behind the sum (OPT 350M)
        alive = is_massive(residual, text_medians(evidence, Stream.RESIDUAL), ALIVE_RATIO).any(0)
        features = alive.nonzero().flatten().tolist()
        return {
            "trace": [
                row
                for layer in range(len(residual))
                for row in _states(evidence, layer, before[layer] if adds or layer else None)
            ],
            "contributions": [
                {
                    "feature": feature,
                    "layer": layer,
                    "before": float(before[layer, feature]),
                    "attention": float(attention[layer, feature]),
                    "mlp": float(mlp[layer, feature]),
                    "after": float(residual[layer, feature]),
                }
                for feature in features
                for layer in range(len(residual))
                if adds
            ],
            "emergence": evidence.read(self, massive_layer(residual, inner)),
        }


def _states(evidence: Evidence, layer: int, before: Tensor | None) -> list[dict]:
    adapter = evidence.adapter
    seen = {stream: start_state(evidence, stream, layer) for stream in (*_STATES, Stream.RESIDUAL)}
    inner, mlp_input = start_intermediate(evidence, layer), seen[Stream.MLP_INPUT]
    middle = None if before is None else before + seen[Stream.ATTN_UPDATE]
    behind = {name: adapter.norm(layer, name) is not None for name in ("attn_output", "mlp_output")}
    states: list[tuple[str, Tensor]] = [
        *([("before", before)] if before is not None else []),
        ("attn_input", seen[Stream.ATTN_INPUT]),
        ("attn_output", seen[Stream.ATTN_OUTPUT]),
        *([("attn_update", seen[Stream.ATTN_UPDATE])] if behind["attn_output"] else []),
        *([("middle", middle)] if middle is not None and _reads(adapter, layer, middle, mlp_input) else []),
        ("mlp_input", mlp_input),
        ("down_proj_input", inner.values),
        ("mlp_output", seen[Stream.MLP_OUTPUT]),
        *([("mlp_update", seen[Stream.MLP_UPDATE])] if behind["mlp_output"] else []),
        ("residual", seen[Stream.RESIDUAL]),
    ]
    rows = []
    for step, (name, values) in enumerate(states):
        top = values.abs().topk(min(3, len(values)))
        feature = int(top.indices[0])
        rows.append(
            {
                "layer": layer,
                "step": step,
                "state": name,
                "expert": inner.expert if name == "down_proj_input" else None,
                **{f"top{rank}": value for rank, value in enumerate(top.values.tolist(), start=1)},
                "median": float(values.abs().median()),
                "feature": feature,
                "value": float(values[feature]),
            }
        )
    return rows


def _reads(adapter: Adapter, layer: int, middle: Tensor, mlp_input: Tensor) -> bool:
    """Say whether the FFN reads h + attention; where both stand side by side, it reads what attention reads."""
    norm = adapter.norm(layer, "mlp_input")
    state = middle.to(adapter.device, adapter.dtype)
    with torch.inference_mode():
        read = (state if norm is None else norm(state)).float().cpu()
    scale = float(mlp_input.abs().max())
    return bool((read - mlp_input).abs().max() <= 0.02 * scale)  # rounding of bfloat16; otherwise they differ wholly

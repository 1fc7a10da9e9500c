"""Rotary features of every head: which are offsets, which bounds they satisfy, and which select the sink."""

import math
from typing import Any, ClassVar

import polars as pl
import torch
from torch import Tensor

from monadnock.models import Adapter
from monadnock.models.rotary import training_context
from monadnock.probes.base import Ask, Evidence
from monadnock.sites import Stream
from monadnock.stats import AttentionStates
from monadnock.thresholds import GU2025_SINK_MASS, OFFSET_CONCENTRATION, OFFSET_RADIUS


class Rotary:
    """Radius, concentration, angle and cycles of every rotary feature, and their part in the sink's logit."""

    name: ClassVar[str] = "rotary"
    tables: ClassVar[tuple[str, ...]] = ("rotary", "bands")
    thresholds: ClassVar[dict[str, float]] = {
        "monadnock.offset_radius": OFFSET_RADIUS,
        "monadnock.offset_concentration": OFFSET_CONCENTRATION,
        "gu2025.sink_mass": GU2025_SINK_MASS,
    }

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for attention with its queries, keys and values."""
        return [Ask(Stream.HEADS, AttentionStates)]

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill rotary, which has no rows for models without rotary, and bands."""
        frames, bands = [pl.DataFrame()], []
        for layer in range(evidence.adapter.num_layers):
            stat = evidence.get(AttentionStates, Stream.HEADS, layer)
            bands += [{"layer": layer} | row for row in _bands(stat)]
            if hasattr(stat, "rotary_theta"):
                frame = _features(stat, training_context(evidence.adapter, layer))
                frames.append(frame.with_columns(layer=pl.lit(layer)))
        return {"rotary": pl.concat(frames, how="diagonal"), "bands": bands}


def bounds(theta: Tensor, angle: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Say which rotary features can act as offsets: theta P <= pi, and negative over the whole context.

    A pair adds r_q r_k cos(angle + theta p) to the logit at distance p (derived in docs/rotary.md).

    Args:
        theta: angle per position, [..., feature].
        angle: of the mean query minus that of the mean key, in (-pi, pi], [..., feature].
        context: P.

    Example:
        >>> theta = 10000.0 ** (-torch.arange(16) / 16)  # d_head 32
        >>> int(bounds(theta, torch.zeros(16), 2048)[0].int().argmax())
        12
    """
    turned = angle.remainder(2 * math.pi)
    frequency = theta * context <= math.pi
    return frequency.expand(angle.shape), (turned >= math.pi / 2) & (turned + theta * context <= 1.5 * math.pi)


def _features(stat: AttentionStates, context: int | None) -> pl.DataFrame:
    heads, groups = len(stat.rotary_q), len(stat.rotary_q) // len(stat.rotary_k)
    theta, (first, second) = stat.rotary_theta, stat.rotary_dims
    (q_radius, q_focus, q_angle), (k_radius, k_focus, k_angle) = (
        _direction(sums, stat.rotary_tokens) for sums in (stat.rotary_q, stat.rotary_k.repeat_interleave(groups, 0))
    )
    q_relative, k_relative = (radius / radius.mean(1, keepdim=True) for radius in (q_radius, k_radius))
    angle = math.pi - (math.pi - q_angle + k_angle).remainder(2 * math.pi)  # in (-pi, pi]
    frequency, whole = bounds(theta, angle, context) if context else (None, None)
    offset = (torch.minimum(q_relative, k_relative) >= OFFSET_RADIUS) & (
        torch.minimum(q_focus, k_focus) >= OFFSET_CONCENTRATION
    )
    products = {
        name: (sums[:, first] + sums[:, second]) / stat.rotary_windows
        for name, sums in (("sink", stat.rotary_sink_products), ("mean", stat.rotary_mean_products))
    }
    index = torch.arange(heads)[:, None]
    columns: dict[str, Any] = {
        "head": index,
        "kv_head": index // groups,
        "feature": torch.arange(len(theta)),
        "dimension": first,
        "other_dimension": second,
        "theta": theta,
        "cycles": theta * context / (2 * math.pi) if context else None,
        "q_radius": q_radius,
        "k_radius": k_radius,
        "q_relative": q_relative,
        "k_relative": k_relative,
        "q_concentration": q_focus,
        "k_concentration": k_focus,
        "angle": angle,
        "sink_k_radius": stat.rotary_sink / stat.rotary_windows,
        "sink_contribution": products["sink"],
        "mean_contribution": products["mean"],
        "offset": offset,
        "bound_frequency": frequency,
        "bound_angle": whole,
        "_sink": stat.has_sink()[:, None],
    }
    flat = {name: v.expand(q_radius.shape).flatten().numpy() for name, v in columns.items() if v is not None}
    only = [pl.when("_sink").then(pl.col(name)).alias(name) for name in ("sink_k_radius", "sink_contribution")]
    return pl.DataFrame(flat).with_columns(*only, context=pl.lit(context, dtype=pl.Int64)).drop("_sink")


def _direction(sums: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean radius, concentration and angle of the mean vector, each [head, feature]."""
    radius, a, b = (sums / tokens).unbind(-1)
    return radius, torch.hypot(a, b) / radius.clamp(min=1e-30), torch.atan2(b, a)


def _bands(stat: AttentionStates) -> list[dict]:
    place: dict[int, tuple[int, int]] = {}
    if hasattr(stat, "rotary_dims"):
        for half, dims in enumerate(stat.rotary_dims.tolist()):
            place |= {dim: (feature, half) for feature, dim in enumerate(dims)}
    return [
        {
            "dimension": dim,
            "feature": place.get(dim, (None, None))[0],
            "half": place.get(dim, (None, None))[1],
            "q_max": float(q),
            "k_max": float(k),
        }
        for dim, (q, k) in enumerate(stat.rotary_max.t().tolist())
    ]

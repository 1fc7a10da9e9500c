"""What sinks do: how they scale what heads read, what aligns queries with them, how little is written at them."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from monadnock.models import Adapter
from monadnock.probes.base import Ask, Evidence
from monadnock.sites import Stream
from monadnock.stats import AttentionStates, Norms
from monadnock.stats import probabilities as at
from monadnock.stats.heads import BINS
from monadnock.thresholds import GU2025_SINK_MASS

DIMENSIONS = 4  # dimensions listed of every head with a sink
LEARNED_MASS = 1e-3  # a learned sink that takes less than this scales nothing


class Sinks:
    """Implicit scaling of every head, the dimensions that select its sink, and zero-update (an2025)."""

    name: ClassVar[str] = "sinks"
    tables: ClassVar[tuple[str, ...]] = ("scaling", "spread", "zero_update")
    thresholds: ClassVar[dict[str, float]] = {
        "gu2025.sink_mass": GU2025_SINK_MASS,
        "monadnock.seen_share": at.SEEN_SHARE,
        "monadnock.learned_mass": LEARNED_MASS,
    }

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for attention with its queries, keys and values, and for what it adds to the residual."""
        return [Ask(Stream.HEADS, AttentionStates), Ask(Stream.ATTN_UPDATE, Norms)]

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill scaling, spread and zero_update."""
        tables: dict[str, list[dict]] = {name: [] for name in self.tables}
        for layer in range(evidence.adapter.num_layers):
            stat = evidence.get(AttentionStates, Stream.HEADS, layer)
            sums_to_one = getattr(evidence.adapter.config, "attention_variant", "") != "sigmoid"
            tables["scaling"] += [{"layer": layer} | row for row in _scaling(stat, sums_to_one)]
            tables["spread"] += [{"layer": layer} | row for row in _spread(stat, evidence.adapter.num_kv_heads)]
            norms = evidence.get(Norms, Stream.ATTN_UPDATE, layer).values[stat.seen]
            tables["zero_update"].append({"layer": layer} | _zero_update(norms, stat.sink_positions[stat.seen]))
        return tables


def context_share(scaled: Tensor, windows: int) -> Tensor:
    """Return the share of the variance of S that is between windows at the same position, [head]; NaN if undefined.

    The variance is split as in a one-way analysis of variance with positions as groups: unbiased within positions,
    and between them what is left when the mean of few windows is taken for the truth.

    Args:
        scaled: sums over windows of S and S^2, [2, head, seq].
        windows: how many.
    """
    if windows < 2:
        return torch.full(scaled.shape[1:2], float("nan"), dtype=scaled.dtype)
    mean = scaled[0] / windows
    within = ((scaled[1] - windows * mean**2) / (windows - 1)).clamp(min=0).mean(1)
    between = (mean.var(1) - within / windows).clamp(min=0)
    total = within + between
    return torch.where(total > 1e-6, within / total, float("nan"))  # a spread below 0.001 is none


def _scaling(stat: AttentionStates, sums_to_one: bool) -> list[dict]:
    """Return a row for each head; where attention need not sum to one, no sink takes from others, and S is nothing."""
    windows, size = int(stat.seen.sum()), stat.scaled.shape[2]
    mean, square = stat.scaled.sum(2) / (windows * size)
    shares = context_share(stat.scaled, windows)
    sinks, gate, value = stat.facts[stat.seen].mean(0).unbind(1)
    learned = 1 - stat.head[stat.seen][:, :, at.TOTAL].mean(0)
    below = stat.scaled_bins.cumsum(1) / stat.scaled_bins.sum(1, keepdim=True).clamp(min=1)
    known = mean.isfinite() & sums_to_one
    has_sink, gated = stat.has_sink(), stat.facts[stat.seen][:, :, 1].ne(1).any(0)
    rows = []
    for head in range(len(mean)):
        parts = {"key": has_sink[head], "learned": learned[head] > LEARNED_MASS, "gate": gated[head]}
        names = [name for name, there in parts.items() if there and (sums_to_one or name == "gate")]
        share = float(shares[head])
        rows.append(
            {
                "head": head,
                "kind": "+".join(names) or "none",
                "sink_keys": float(sinks[head]),
                "learned_mass": max(0.0, float(learned[head])) if sums_to_one else None,
                "gate": float(gate[head]),
                "mean": float(mean[head]) if sums_to_one else None,
                "std": float((square[head] - mean[head] ** 2).clamp(min=0).sqrt()) if sums_to_one else None,
                "p10": _quantile(below[head], 0.1) if known[head] else None,
                "p90": _quantile(below[head], 0.9) if known[head] else None,
                "context_share": share if share == share and sums_to_one else None,
                "value_ratio": float(value[head]),
            }
        )
    return rows


def _quantile(below: Tensor, share: float) -> float:
    """Return the middle of the bin at which a cumulative histogram passes a share; 1 around 1, which is no gate's."""
    bin_ = int((below < share).sum())
    return 1.0 if bin_ in (BINS - 1, BINS) else (bin_ + 0.5) / BINS


def _spread(stat: AttentionStates, num_kv_heads: int) -> list[dict]:
    windows = stat.rotary_windows
    sink, mean = stat.rotary_sink_products / windows, stat.rotary_mean_products / windows  # [head, d_head]
    extra = sink - mean
    top = extra.topk(min(DIMENSIONS, extra.shape[1]), dim=1).indices
    return [
        {
            "head": head,
            "kv_head": head * num_kv_heads // len(sink),
            "rank": rank,
            "dimension": dim,
            "sink_product": float(sink[head, dim]),
            "mean_product": float(mean[head, dim]),
            "share": float(extra[head, dim] / extra[head].sum()),
        }
        for head in stat.has_sink().nonzero().flatten().tolist()
        for rank, dim in enumerate(top[head].tolist(), start=1)
    ]


def _zero_update(norms: Tensor, sinks: Tensor) -> dict:
    """Compare what attention adds to h at sinks and elsewhere, both [window, seq]."""
    at_sinks = float(norms[sinks].mean()) if bool(sinks.any()) else None
    others = float(norms[~sinks].mean()) if not bool(sinks.all()) else None
    return {
        "num_sinks": float(sinks.sum(1).double().mean()),
        "sinks": at_sinks,
        "others": others,
        "ratio": at_sinks / others if at_sinks is not None and others else None,
    }

"""Attention outliers and sinks: which keys gather attention, in which heads, and what kind each head is."""

from typing import Any, ClassVar

from monadnock.data.token_classes import prevailing
from monadnock.models import Adapter
from monadnock.probes.base import Ask, Evidence
from monadnock.sites import Stream
from monadnock.stats import Attention as AttentionStat
from monadnock.stats import probabilities as at
from monadnock.thresholds import AN2025_RATIO, GU2025_SINK_MASS

KIND_MASS = 0.3  # a head is of the kind to which it gives the most, if that is at least this much of its attention
LOCAL_MASS = 0.5  # a head is local if its last 8 keys get this much
LISTED = 2  # keys listed of every head and window by cumulative score


class Attention:
    """Cumulative and normalised attention scores, sinks and head kinds, over blocks of queries."""

    name: ClassVar[str] = "attention"
    tables: ClassVar[tuple[str, ...]] = ("attention", "heads")
    thresholds: ClassVar[dict[str, float]] = {
        "an2025.attention_ratio": AN2025_RATIO,
        "gu2025.sink_mass": GU2025_SINK_MASS,
        "monadnock.kind_mass": KIND_MASS,
        "monadnock.local_mass": LOCAL_MASS,
        "monadnock.local_keys": at.LOCAL,
        "monadnock.seen_share": at.SEEN_SHARE,
        "monadnock.entropy_stride": at.ENTROPY_STRIDE,
    }

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for attention sums at every layer."""
        return [Ask(Stream.ATTN_PROBS, AttentionStat)]

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill attention and heads."""
        keys, heads = [], []
        for layer in range(evidence.adapter.num_layers):
            stat = evidence.get(AttentionStat, Stream.ATTN_PROBS, layer)
            keys += [{"layer": layer} | row for row in _keys(stat, evidence)]
            heads += [{"layer": layer} | row for row in _heads(stat, evidence)]
        return {"attention": keys, "heads": heads}


def head_kind(sink: float, previous: float, own: float, local: float) -> str:
    """Name the kind of a head from the attention it gives to its sink, the previous token, itself and its last 8 keys.

    Example:
        >>> head_kind(sink=0.8, previous=0.1, own=0.05, local=0.2)
        'sink'
    """
    name, mass = max({"sink": sink, "previous": previous, "self": own}.items(), key=lambda item: item[1])
    if mass > KIND_MASS:
        return name
    return "local" if local > LOCAL_MASS else "broad"


def _keys(stat: AttentionStat, evidence: Evidence) -> list[dict]:
    rows = []
    num_heads = stat.head.shape[1]
    for window in stat.seen.nonzero().flatten().tolist():
        values, positions = stat.top_value[window].tolist(), stat.top_position[window].tolist()
        queries, peaks = stat.top_queries[window].tolist(), stat.peak[window].tolist()
        outliers = stat.outliers[window].tolist()
        for head in range(num_heads + 1):
            found = {
                position: (value, seen, rank < outliers[head])
                for rank, (value, position, seen) in enumerate(
                    zip(values[head], positions[head], queries[head], strict=True)
                )
                if position >= 0 and (rank < LISTED or rank < outliers[head])
            }
            value, position, seen = peaks[head]
            found.setdefault(int(position), (value, int(seen), False))
            rows += [
                {
                    "head": head if head < num_heads else None,
                    "sequence": window,
                    "position": position,
                    **evidence.token(window, position),
                    "cumulative": value,
                    "normalized": value / seen if seen else None,
                    "num_queries": seen,
                    "outlier": outlier,
                }
                for position, (value, seen, outlier) in found.items()
            ]
    return rows


def _heads(stat: AttentionStat, evidence: Evidence) -> list[dict]:
    windows = stat.seen.nonzero().flatten().tolist()
    facts = stat.head[stat.seen]  # [window, head, fact]
    outliers, has_sink = stat.outliers[stat.seen].sum(0).tolist(), stat.has_sink().tolist()
    rows = []
    for head in range(facts.shape[1]):
        mean = facts[:, head].mean(0).tolist()
        positions = [int(place) for place in facts[:, head, at.SINK_POSITION].tolist()]
        classes = [evidence.token(w, place)["token_class"] for w, place in zip(windows, positions, strict=True)]
        rows.append(
            {
                "head": head,
                "kind": head_kind(mean[at.SINK], mean[at.PREVIOUS], mean[at.SELF], mean[at.NEAR]),
                "first_key_mass": mean[at.FIRST],
                "sink_mass": mean[at.SINK],
                "sink_position": prevailing(positions),
                "sink_token_class": prevailing(classes),
                "sink": has_sink[head],
                "entropy": mean[at.ENTROPY],
                "mean_distance": mean[at.DISTANCE],
                "previous_mass": mean[at.PREVIOUS],
                "self_mass": mean[at.SELF],
                "local_mass": mean[at.NEAR],
                "logit_gap": None if mean[at.GAP] != mean[at.GAP] else mean[at.GAP],
                "num_outliers": outliers[head],
            }
        )
    return rows

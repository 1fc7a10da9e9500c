"""Activation outliers: how large the states of a stream are, where the largest sit, and in which features."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from monadnock.errors import MonadnockError, nearest
from monadnock.models import Adapter
from monadnock.probes.base import Ask, Evidence
from monadnock.sites import Stream
from monadnock.stats import Magnitude
from monadnock.thresholds import AN2025_RATIO, SUN2024_MAGNITUDE, SUN2024_RATIO

FLOAT16_MAX = 65504.0
ALWAYS = 5  # entries listed of every layer and window, outliers or not
FEATURES = 64  # features listed of every layer
_OTHERS = (Stream.ATTN_PROBS, Stream.HEADS, Stream.ROUTER_LOGITS)  # no activations


class Activations:
    """Size, shape and largest entries of chosen streams, by default the residual and the down projection's input.

    Args:
        streams: stream names: residual, down_proj_input, attn_input, query, key, value, attn_output, attn_update,
            mlp_input, mlp_output, mlp_update.

    Raises:
        MonadnockError: on an unknown stream.

    Example:
        >>> Activations(["query", "key"]).streams
        (<Stream.QUERY: 'query'>, <Stream.KEY: 'key'>)
    """

    name: ClassVar[str] = "activations"
    tables: ClassVar[tuple[str, ...]] = ("layers", "activations", "features", "nonfinite")
    thresholds: ClassVar[dict[str, float]] = {
        "an2025.activation_ratio": AN2025_RATIO,
        "sun2024.median_ratio": SUN2024_RATIO,
        "sun2024.magnitude": SUN2024_MAGNITUDE,
    }

    def __init__(self, streams: Sequence[str] = (Stream.RESIDUAL, Stream.DOWN_PROJ_INPUT)):
        known = [
            stream.value for stream in Stream if stream not in (Stream.ATTN_PROBS, Stream.HEADS, Stream.ROUTER_LOGITS)
        ]
        for stream in streams:
            if stream not in known:
                raise MonadnockError(f"There is no stream {stream!r} to take activations of: {nearest(stream, known)}")
        self.streams = tuple(Stream(stream) for stream in dict.fromkeys(streams))

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for magnitudes at each stream."""
        return [Ask(stream, Magnitude) for stream in self.streams]

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill layers, activations, features and nonfinite."""
        tables: dict[str, list[dict]] = {name: [] for name in self.tables}
        for stream in self.streams:
            for layer in range(evidence.adapter.num_layers):
                stat = evidence.get(Magnitude, stream, layer)
                place = {"stream": stream.value, "layer": layer}
                tables["layers"].append(place | _layer(stat))
                tables["activations"] += [place | row for row in _entries(stat, evidence)]
                tables["features"] += [place | row for row in _features(stat)]
                bad = int(stat.scalars[:, 8].sum())
                if bad:
                    tables["nonfinite"].append({"where": stream.value, "layer": layer, "name": "text", "count": bad})
        return tables


def _layer(stat: Magnitude) -> dict[str, float]:
    top = stat.top_value[stat.seen][:, :3].abs().double().mean(0).tolist()
    return {
        "top1": top[0],
        "top2": top[1],
        "top3": top[2],
        "median": float(stat.medians().mean()),
        "mean_abs": float(stat.means().mean()),
        "rms": stat.rms(),
        "kurtosis": stat.kurtosis(),
        "num_outliers": int(stat.scalars[stat.seen, 7].sum()),
    }


def _entries(stat: Magnitude, evidence: Evidence) -> list[dict]:
    rows = []
    windows = stat.seen.nonzero().flatten().tolist()
    for window, mean, median in zip(windows, stat.means().tolist(), stat.medians().tolist(), strict=True):
        values = stat.top_value[window].tolist()
        places = stat.top_place[window].tolist()
        for rank, (value, (position, feature, expert)) in enumerate(zip(values, places, strict=True), start=1):
            size = abs(value)
            kinds = []
            if size > AN2025_RATIO * mean:
                kinds.append("an2025")
            if size > SUN2024_MAGNITUDE and size > SUN2024_RATIO * median:
                kinds.append("sun2024")
            if feature < 0 or (rank > ALWAYS and not kinds):
                break
            rows.append(
                {
                    "expert": None if expert < 0 else expert,
                    "rank": rank,
                    "sequence": window,
                    "position": position,
                    **evidence.token(window, position),
                    "feature": feature,
                    "value": value,
                    "ratio_mean": size / mean if mean else None,
                    "ratio_median": size / median if median else None,
                    "criterion": "+".join(kinds) or None,
                    "overflows_float16": size > FLOAT16_MAX,
                }
            )
    return rows


def _features(stat: Magnitude) -> list[dict]:
    top: torch.return_types.topk = stat.feature_max.topk(min(FEATURES, len(stat.feature_max)))
    means = stat.feature_mean()
    return [
        {"feature": feature, "max_abs": value, "mean_abs": float(means[feature])}
        for feature, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]

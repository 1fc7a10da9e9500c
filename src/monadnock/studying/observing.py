"""Watches one input go through the model: the largest |h| of every position, and where attention goes."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monadnock.data import token_columns
from monadnock.models import Adapter, AttentionBlock
from monadnock.models.start import run_layers
from monadnock.sites import Site, Stream
from monadnock.stats import is_massive
from monadnock.stats.probabilities import SEEN_SHARE
from monadnock.thresholds import GU2025_SINK_MASS


@dataclass(frozen=True)
class Seen:
    """What one input gave.

    Attributes:
        rows: a row of the table `inputs` for each layer and position, without the input's name.
        maps: attention by layer and head (None: mean over heads), [query, key].
    """

    rows: list[dict[str, Any]]
    maps: dict[tuple[int, int | None], Tensor]


class _Layer:
    """Attention of one layer, summed at once; of the heads in `maps` (None: their mean) every pair is kept."""

    def __init__(self, maps: Collection[int | None]):
        self.maps: dict[int | None, Tensor] = dict.fromkeys(maps, torch.empty(0))  # [query, key] (float32, CPU)
        self.sums = torch.empty(0)  # sum over queries, [head, key] (float64, CPU)
        self.num_queries = torch.empty(0)  # [key]

    def take(self, block: Any) -> None:
        """Take in a block of queries, in any order; what else is shown here (queries, keys, values) is left."""
        if not isinstance(block, AttentionBlock):
            return
        heads, queries, keys = block.probs.shape
        if not self.sums.numel():
            self.num_queries = block.num_queries.cpu()
            size = len(self.num_queries)
            self.sums = torch.zeros(heads, size, dtype=torch.float64)
            self.maps = {head: torch.zeros(size, size) for head in self.maps}
        probs = block.probs.float()
        columns = slice(block.first_key, block.first_key + keys)
        self.sums[:, columns] += probs.sum(1).double().cpu()
        for head, mass in self.maps.items():
            part = probs.mean(0) if head is None else probs[head]
            mass[block.first_query : block.first_query + queries, columns] = part.cpu()


def observe_input(
    adapter: Adapter, ids: Tensor, medians: Tensor, wanted: Collection[tuple[int, int | None]] = ()
) -> Seen:
    """Run one short input and return what every layer did with every position of it.

    Args:
        adapter: the model.
        ids: token ids, [seq].
        medians: median |h| behind each layer over a text, [layer]; the input's own would be inflated by its outliers.
        wanted: which maps to keep, as (layer, head); head None is the mean over heads.

    Example:
        >>> seen = observe_input(adapter, ids, medians)  # doctest: +SKIP
        >>> [row["token"] for row in seen.rows if row["massive"]][:1]  # doctest: +SKIP
        ['<|im_start|>']
    """
    states: dict[int, Tensor] = {}
    layers = range(adapter.num_layers)
    attention = [_Layer([head for place, head in wanted if place == layer]) for layer in layers]
    watchers: dict[Site, Any] = {}
    for layer in layers:
        watchers[Site(Stream.RESIDUAL, layer)] = _keeper(states, layer)
        watchers[Site(Stream.ATTN_PROBS, layer)] = attention[layer].take
    run_layers(adapter, ids, watchers)
    tokens = [token_columns(adapter.tokenizer, token, position) for position, token in enumerate(ids.tolist())]
    rows = []
    for layer, seen in enumerate(attention):
        facts = _states(states[layer], medians[layer]) | _keys(seen)
        columns = {name: values.tolist() for name, values in facts.items()}
        for position, token in enumerate(tokens):
            found = {name: values[position] for name, values in columns.items()}
            rows.append({"layer": layer, "position": position, **token, **found})
    return Seen(rows, {(layer, head): attention[layer].maps[head] for layer, head in wanted})


def map_rows(mass: Tensor) -> list[dict[str, Any]]:
    """Return the pairs of a map [query, key] in which the key is not behind the query."""
    values = mass.tolist()
    return [
        {"query": query, "key": key, "mass": row[key]} for query, row in enumerate(values) for key in range(query + 1)
    ]


def _keeper(states: dict[int, Tensor], layer: int) -> Any:
    def keep(batch: Any) -> None:
        states[layer] = batch.values.float().cpu()

    return keep


def _states(values: Tensor, median: Tensor) -> dict[str, Tensor]:
    """Return columns on the states [position, d_model] of one layer, each [position]."""
    top = values.abs().max(1)
    return {
        "top1": top.values.double(),
        "feature": top.indices,
        "ratio": top.values.double() / median,
        "rms": values.double().square().mean(1).sqrt(),
        "massive": is_massive(values, median.float()).any(1),
    }


def _keys(seen: _Layer) -> dict[str, Tensor]:
    """Return columns on the keys of one layer, each [position]."""
    num_queries = seen.num_queries
    alpha = seen.sums / num_queries.clamp(min=1)  # [head, key]
    counted = num_queries >= SEEN_SHARE * num_queries.max()
    return {
        "attention": alpha.mean(0),
        "uniform": uniform(num_queries),
        "num_sink_heads": ((alpha > GU2025_SINK_MASS) & counted).sum(0),
    }


def uniform(num_queries: Tensor) -> Tensor:
    """Return alpha_j of attention that gives all visible keys the same, [key].

    Args:
        num_queries: how many queries see each key, [key]; the first sees the largest number, the width of a window.

    Example:
        >>> import torch
        >>> [round(share, 3) for share in uniform(torch.tensor([3, 2, 1])).tolist()]
        [0.611, 0.417, 0.333]
    """
    size, width = len(num_queries), int(num_queries.max())
    share = 1 / torch.arange(1, size + 1, dtype=torch.float64).clamp(max=width)  # of each query
    return torch.stack([share[key : key + int(count)].mean() for key, count in enumerate(num_queries)])

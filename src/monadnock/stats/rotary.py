"""Sums over tokens of what rotary offsets are made of: radii, directions, and products of queries with keys."""

from typing import Protocol

import torch
from torch import Tensor

from monadnock.stats.base import Rule


class _Turn(Protocol):
    cos: Tensor
    sin: Tensor
    theta: Tensor
    first: Tensor
    second: Tensor

    def pairs(self, states: Tensor) -> tuple[Tensor, Tensor]: ...


class _States(Protocol):
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    num_queries: Tensor

    @property
    def turn(self) -> _Turn | None: ...


RULES: dict[str, Rule] = {
    "rotary_theta": "max",
    "rotary_dims": "max",
    "rotary_q": "sum",
    "rotary_k": "sum",
    "rotary_sink": "sum",
    "rotary_sink_products": "sum",
    "rotary_mean_products": "sum",
    "rotary_max": "max",
    "rotary_tokens": "sum",
    "rotary_windows": "sum",
}


def rotary_sums(states: _States, peak: Tensor) -> dict[str, Tensor]:
    """Return what one window adds to each sum in `RULES`, on the CPU; those on pairs only where there is rotary.

    Products are query times key times scale, dimension by dimension, so that they sum to the logit (before soft
    capping and biases).

    - rotary_theta: angle per position of each feature, [feature] (float64)
    - rotary_dims: first and second dimension of each pair, [2, feature]
    - rotary_q: radius, and vector before rotary, summed over tokens, [head, feature, 3] (float64)
    - rotary_k: the same of keys, [kv_head, feature, 3]
    - rotary_sink: radius of the key with most attention, [head, feature]
    - rotary_sink_products: mean product of that key with the queries that see it, [head, d_head]
    - rotary_mean_products: mean product over all pairs of a query and a key that it sees, [head, d_head]
    - rotary_max: largest |q| and |k| over tokens and heads, [2, d_head]
    - rotary_tokens: tokens seen, [1]; rotary_windows: 1, [1]

    Args:
        states: the `HeadStates` of the window.
        peak: position of the key with most attention, [head].
    """
    query, key, seen = states.query.float(), states.key.float(), states.num_queries
    new = {
        "rotary_sink_products": _sink_products(query, key, peak, seen) * states.scale,
        "rotary_mean_products": _mean_products(query, key, seen) * states.scale,
        "rotary_max": torch.stack([query.abs().amax((0, 1)), key.abs().amax((0, 1))]),
        "rotary_tokens": torch.tensor([query.shape[1]]),
        "rotary_windows": torch.tensor([1]),
    }
    if states.turn is not None:
        kv_head = torch.arange(len(query), device=key.device) // (len(query) // len(key))
        new["rotary_q"], _ = _vectors(query, states.turn)
        new["rotary_k"], radii = _vectors(key, states.turn)
        new["rotary_sink"] = radii[kv_head, peak]
        new["rotary_theta"] = states.turn.theta
        new["rotary_dims"] = torch.stack([states.turn.first, states.turn.second])
    return {name: value.cpu().double() if value.is_floating_point() else value for name, value in new.items()}


def _vectors(states: Tensor, turn: _Turn) -> tuple[Tensor, Tensor]:
    """Return sums over tokens of radii and of vectors before rotary, [head, feature, 3]; radii [head, seq, feature]."""
    a, b = turn.pairs(states)
    radii = torch.hypot(a, b)
    cos, sin = turn.cos.float(), turn.sin.float()
    strength = (cos * cos + sin * sin).sqrt()  # 1, or the factor that yarn puts on both
    cos, sin = cos / strength, sin / strength
    back_a = torch.einsum("hsf,sf->hf", a, cos) + torch.einsum("hsf,sf->hf", b, sin)
    back_b = torch.einsum("hsf,sf->hf", b, cos) - torch.einsum("hsf,sf->hf", a, sin)
    return torch.stack([radii.sum(1), back_a, back_b], dim=-1), radii


def _sink_products(query: Tensor, key: Tensor, peak: Tensor, seen: Tensor) -> Tensor:
    """Return q * k of one key of each head, mean over the queries that see it, [head, d_head].

    Args:
        query: [head, seq, d_head].
        key: [kv_head, seq, d_head].
        peak: position of that key, [head].
        seen: how many queries see each key, [seq]: they are the ones from the key's own position on.
    """
    index, count = torch.arange(query.shape[1], device=query.device), seen.to(query.device)[peak][:, None]
    sees = (index >= peak[:, None]) & (index < peak[:, None] + count)  # [head, seq]
    mean = torch.einsum("hs,hsd->hd", sees.to(query.dtype), query) / count
    kv_head = torch.arange(len(query), device=query.device) // (len(query) // len(key))
    return mean * key[kv_head, peak]


def _mean_products(query: Tensor, key: Tensor, seen: Tensor) -> Tensor:
    """Return q * k averaged over all pairs of a query and a key that it sees, [head, d_head].

    Args:
        query: [head, seq, d_head].
        key: [kv_head, seq, d_head].
        seen: how many queries see each key, [seq].
    """
    window, pairs = int(seen.max()), int(seen.sum())
    sums = key.cumsum(1)  # of all keys up to each query, then without those that slid out of its window
    if window < key.shape[1]:
        sums[:, window:] -= sums[:, :-window].clone()
    grouped = query.unflatten(0, (len(key), -1))  # [kv_head, query of it, seq, d_head]
    return torch.einsum("gqsd,gsd->gqd", grouped, sums).flatten(0, 1) / pairs

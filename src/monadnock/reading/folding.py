"""Norms folded into weights: what is read in front of a norm, and what comes out behind it."""

import torch
from torch import Tensor, nn

from monadnock.models import Adapter
from monadnock.models.offload import present


def run_norm(norm: nn.Module, states: Tensor) -> Tensor:
    """Run a norm module on states [..., width], in its own dtype and wherever its weights are kept."""
    weight = next(norm.parameters(), states)
    device = states.device if weight.is_meta else weight.device  # accelerate moves the states on
    with torch.inference_mode():
        return norm(states.to(device, weight.dtype))


def centres(norm: nn.Module) -> bool:
    """Say whether a norm takes the mean away: then it makes of equal entries what it makes of zeros."""
    weight = present(norm, "weight")
    if weight is None:
        return isinstance(norm, nn.LayerNorm)
    equal, signs, nothing = torch.ones(weight.shape), torch.ones(weight.shape), torch.zeros(weight.shape)
    signs[..., ::2] = -1
    equal, signs = ((run_norm(norm, each) - run_norm(norm, nothing)).float().abs().max() for each in (equal, signs))
    return bool(equal < 0.01 * signs)


def in_front(adapter: Adapter, layer: int, name: str, rows: Tensor) -> Tensor:
    """Return rows of weights [..., width] that read a norm's output as they read the state in front of it.

    They are multiplied by its gains, and lose their mean where the norm takes that of the state away. Biases are left
    out: they are no direction of the state.

    Args:
        adapter: the model.
        layer: 0-based decoder layer.
        name: which norm; rows come back as they are where there is none.
        rows: what reads its output.
    """
    norm, gains = adapter.norm(layer, name), adapter.gains(layer, name)
    rows = rows if gains is None else rows * gains.to(rows.device)
    return _centred(rows) if norm is not None and centres(norm) else rows


def behind(adapter: Adapter, layer: int, name: str, vectors: Tensor) -> Tensor:
    """Return vectors of weights [..., width] that are written in front of a norm as they come out behind it.

    Args:
        adapter: the model.
        layer: 0-based decoder layer.
        name: which norm; vectors come back as they are where there is none.
        vectors: what is written.
    """
    norm, gains = adapter.norm(layer, name), adapter.gains(layer, name)
    vectors = _centred(vectors) if norm is not None and centres(norm) else vectors
    return vectors if gains is None else vectors * gains.to(vectors.device)


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(-1, keepdim=True)

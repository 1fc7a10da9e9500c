"""Compressors that look at the weights alone: AbsMax, magnitude pruning, rounding to the nearest level."""

import torch
from torch import Tensor

from monadnock.compression.grid import Grid


def absmax(weight: Tensor, bits: int = 8, group: int | None = None, *, whole: bool = False) -> Tensor:
    """Round to evenly spaced levels on both sides of 0, as many as reach the largest |w| (an2025).

    w -> round(w q / max|w|) max|w| / q with q = 2^(bits - 1) - 1, 127 for 8 bits.

    Args:
        weight: [out, in].
        bits: of a weight, 2 to 16.
        group: columns of a row that share a scale; by default the whole row.
        whole: one scale for the whole matrix.

    Example:
        >>> absmax(torch.tensor([[1.27, 0.004], [0.5, 0.0]]), whole=True)
        tensor([[1.2700, 0.0000],
                [0.5000, 0.0000]])
    """
    top = 2 ** (bits - 1) - 1
    if whole:
        return _scaled(weight, weight.abs().amax() / top)
    parts = weight.split(group or weight.shape[1], dim=1)
    return torch.cat([_scaled(part, part.abs().amax(1, keepdim=True) / top) for part in parts], 1)


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale > 0, torch.round(weight / scale) * scale, weight)


def nearest(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Round each weight to the nearest of 2^bits levels between the smallest and the largest of its row or group.

    Args:
        weight: [out, in].
        bits: of a weight.
        group: columns of a row that share a grid; by default the whole row.

    Example:
        >>> nearest(torch.tensor([[0.0, 0.4, 3.0]]), 2)
        tensor([[0., 0., 3.]])
    """
    return torch.cat([Grid.fit(part, bits).round(part) for part in weight.split(group or weight.shape[1], dim=1)], 1)


def magnitude(weight: Tensor, share: float = 0.5, *, whole: bool = True) -> Tensor:
    """Set a share of the weights to 0, those with the smallest |w| (an2025).

    Args:
        weight: [out, in].
        share: of the weights that go, rounded down to whole weights.
        whole: choose them in the whole matrix, not in each row alike.

    Example:
        >>> magnitude(torch.tensor([[3.0, -1.0], [0.5, 2.0]]))
        tensor([[3., 0.],
                [0., 2.]])
    """
    flat = weight.reshape(1, -1) if whole else weight
    order = flat.abs().argsort(dim=1, descending=True, stable=True)  # of equal ones the first stay
    gone = order[:, flat.shape[1] - int(share * flat.shape[1]) :]
    return flat.scatter(1, gone, 0.0).view_as(weight)

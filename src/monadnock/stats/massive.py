"""Which entries are massive, and which layer makes them: the definitions, on plain tensors."""

from torch import Tensor

from monadnock.thresholds import SUN2024_MAGNITUDE, SUN2024_RATIO


def is_massive(values: Tensor, median: Tensor, ratio: float = SUN2024_RATIO) -> Tensor:
    """Say which entries are massive: |value| > 100 and > `ratio` times the median (sun2024).

    Args:
        values: states, [..., width].
        median: median |value| over a text, [...]; a single row would inflate its own.
        ratio: how many times the median.

    Example:
        >>> import torch
        >>> is_massive(torch.tensor([90.0, 500.0]), torch.tensor(0.1)).tolist()
        [False, True]
    """
    size = values.abs()
    return (size > SUN2024_MAGNITUDE) & (size > ratio * median[..., None])


def massive_layer(residual: Tensor, inner: Tensor) -> int:
    """Return the massive layer: the largest top-1 |x_down| up to the layer where top-1 |h| peaks (oh2024).

    Late layers can have a large intermediate state too, the one that takes the massive activation away again; hence
    the cut at the peak.

    Args:
        residual: h of the start token, [layer, d_model].
        inner: x_down of the start token, [layer, d_mlp].
    """
    peak = int(residual.abs().amax(1).argmax())
    return int(inner.abs().amax(1)[: peak + 1].argmax())

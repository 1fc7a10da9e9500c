"""A logarithmic histogram of magnitudes, and its median with a known error."""

import torch
from torch import Tensor

# A bin is the upper half of a float32: 8 bits of exponent and 7 of mantissa, so that bin edges are 2**-7 of their
# value apart at most, and the middle of a bin is within 2**-8 (0.4 %) of anything in it.
NUM_BINS = 2**15
RELATIVE_ERROR = 2.0**-8


def histogram(magnitudes: Tensor) -> Tensor:
    """Count non-negative float32 values of any shape into logarithmic bins, [NUM_BINS] (int64)."""
    bits = magnitudes.contiguous().view(torch.int16).flatten()[1::2]  # the upper halves (little endian)
    return torch.bincount(bits, minlength=NUM_BINS)


def histogram_median(counts: Tensor) -> float:
    """Return the lower median of a `histogram`, within `RELATIVE_ERROR` of the exact one.

    Example:
        >>> round(histogram_median(histogram(torch.tensor([1.0, 2.0, 4.0]))), 1)
        2.0
    """
    cumulative = counts.cumsum(0)
    total = int(cumulative[-1])
    if total == 0:
        return float("nan")
    place = torch.searchsorted(cumulative, torch.tensor((total + 1) // 2, device=counts.device))
    edges = torch.stack([place, place + 1]).to(torch.int32) << 16
    low, high = edges.view(torch.float32).tolist()
    return low if low == 0 else (low + high) / 2

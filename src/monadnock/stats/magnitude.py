"""Size and shape of the values at one site: largest entries, median, moments, and the size of every feature."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from monadnock.stats.base import Rule, Statistic
from monadnock.stats.histogram import histogram, histogram_median
from monadnock.thresholds import AN2025_RATIO

TOP = 32  # largest entries kept of every window
FLAT = 1e-2  # of the squared mean: below, float32 sums no longer give the fourth moment to 1 %


class _Rows(Protocol):
    values: Tensor
    position: Tensor | None
    expert: Tensor | None


class Magnitude(Statistic):
    """|value| over all (token, feature) entries of each window, and over all windows of each feature.

    Attributes:
        scalars: per window: count, sum|x|, sum x, sum x^2, sum x^3, sum x^4, median|x|, outliers, non-finite entries
            (float64, [num_windows, 9]); non-finite entries count as zeros elsewhere.
        top_value: signed values of the largest |x|, largest first, [num_windows, TOP]; zeros where there are fewer.
        top_place: position, feature and expert (-1: dense) of these, [num_windows, TOP, 3].
        feature_max: max|x| of each feature, [width].
        feature_sum: sum|x| of each feature, [width].
    """

    rules: ClassVar[dict[str, Rule]] = {
        "scalars": "window",
        "top_value": "window",
        "top_place": "window",
        "feature_max": "max",
        "feature_sum": "sum",
    }
    scalars: Tensor
    top_value: Tensor
    top_place: Tensor
    feature_max: Tensor
    feature_sum: Tensor

    def update(self, batch: _Rows, window: int) -> None:
        """Take in the states [rows, width] of one whole window."""
        values = batch.values.float()
        magnitudes = values.abs()
        total = magnitudes.sum(0)
        num_bad = 0
        if not bool(total.sum().isfinite()):
            num_bad = int((~values.isfinite()).sum())
            values = torch.where(values.isfinite(), values, 0.0)
            magnitudes = values.abs()
            total = magnitudes.sum(0)
        if not hasattr(self, "scalars"):
            self._allocate(values)
        row_max = magnitudes.amax(1)
        self.feature_max = torch.maximum(self.feature_max, magnitudes.amax(0))
        self.feature_sum += total
        self._keep_top(values, row_max, batch, window)
        self._keep_scalars(values, magnitudes, row_max, total, num_bad, window)
        self.seen[window] = True

    def _allocate(self, values: Tensor) -> None:
        windows, width, device = len(self.seen), values.shape[1], values.device
        self.scalars = torch.zeros(windows, 9, dtype=torch.float64)
        self.top_value = torch.zeros(windows, TOP, device=device)
        self.top_place = torch.full((windows, TOP, 3), -1, dtype=torch.int64, device=device)
        self.feature_max = torch.zeros(width, device=device)
        self.feature_sum = torch.zeros(width, dtype=torch.float64, device=device)

    def _keep_top(self, values: Tensor, row_max: Tensor, batch: _Rows, window: int) -> None:
        """Find the largest entries: they lie in the rows with the largest maxima, so only those are searched."""
        rows = row_max.topk(min(TOP, len(row_max))).indices
        near = values[rows]
        place = near.abs().flatten().topk(min(TOP, near.numel())).indices
        row, feature = rows[place // values.shape[1]], place % values.shape[1]
        count = len(place)
        self.top_value[window, :count] = near.flatten()[place]
        self.top_place[window, :count, 0] = row if batch.position is None else batch.position[row]
        self.top_place[window, :count, 1] = feature
        if batch.expert is not None:
            self.top_place[window, :count, 2] = batch.expert[row]

    def _keep_scalars(
        self, values: Tensor, magnitudes: Tensor, row_max: Tensor, total: Tensor, num_bad: int, window: int
    ) -> None:
        count = values.numel()
        flat = values.flatten()
        squares = flat * flat
        sums = torch.stack([flat.sum(), squares.sum(), squares.dot(flat), squares.dot(squares)]).tolist()
        sum_abs = float(total.double().sum())
        bound = AN2025_RATIO * sum_abs / count
        large = row_max > bound
        outliers = int((magnitudes[large] > bound).sum()) if bool(large.any()) else 0
        median = histogram_median(histogram(magnitudes))
        self.scalars[window] = torch.tensor([count, sum_abs, *sums, median, outliers, num_bad], dtype=torch.float64)

    # what the tables read

    def medians(self) -> Tensor:
        """Median |x| of each window that was seen, [windows]."""
        return self.scalars[self.seen, 6]

    def means(self) -> Tensor:
        """Mean |x| of each window that was seen, [windows]."""
        return self.scalars[self.seen, 1] / self.scalars[self.seen, 0]

    def rms(self) -> float:
        """Root mean square over all windows."""
        count, total = self.scalars[self.seen][:, [0, 3]].sum(0).tolist()
        return (total / count) ** 0.5

    def kurtosis(self) -> float:
        """Fourth central moment over the squared variance, over all windows; NaN if all values are nearly the same."""
        count, s1, s2, s3, s4 = self.scalars[self.seen][:, [0, 2, 3, 4, 5]].sum(0).tolist()
        mean = s1 / count
        variance = s2 / count - mean**2
        if variance <= FLAT * mean**2:
            return float("nan")
        fourth = s4 / count - 4 * mean * s3 / count + 6 * mean**2 * s2 / count - 3 * mean**4
        return fourth / variance**2

    def feature_mean(self) -> Tensor:
        """Mean |x| of each feature over all rows, [width]."""
        rows = self.scalars[self.seen, 0].sum() / len(self.feature_sum)
        return self.feature_sum.cpu() / rows

"""SpQR: one matrix rounded column by column, errors made up for by later columns, outliers kept apart (spqr)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from monadnock.compression.grid import Grid, Statistic
from monadnock.errors import MonadnockError

_FAR = 2.0**14  # levels between 0 and the lowest level, at most, where statistics are held in float16
BLOCK = 128  # columns after which all that follow are corrected in one product


@dataclass(frozen=True)
class Setting:
    """How a matrix is rounded; GPTQ is SpQR without outliers and with statistics as they are.

    Attributes:
        bits: of a weight.
        group: columns that share a scale and a zero.
        statistics_bits: of the scales and zeros; None leaves them as they are.
        statistics_group: rows whose scales are rounded together.
        threshold: relative threshold from which a weight is kept apart; infinity keeps none.
        by_size: take columns with large inputs first.
        damping: what is added to the Hessian's diagonal, in parts of its mean.
        half: hold outliers and the statistics of statistics in float16, as they are stored.
    """

    bits: int = 3
    group: int = 16
    statistics_bits: int | None = 3
    statistics_group: int = 16
    threshold: float = 0.2
    by_size: bool = True
    damping: float = 1.0
    half: bool = False


@dataclass(frozen=True)
class Codes:
    """What a rounded matrix is stored as, its columns in the order in which they were rounded.

    Attributes:
        order: the columns, [in].
        codes: level of every weight, [out, in] (uint8).
        scales: rounded scales, one for each group of columns.
        zeros: rounded zeros, likewise.
    """

    order: Tensor
    codes: Tensor
    scales: list[Statistic]
    zeros: list[Statistic]


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix.

    Attributes:
        weight: what its weights stand for, outliers as they were found, [out, in] (float32).
        outliers: which weights are kept apart, [out, in].
        errors: what was left of each weight when it was rounded, over the diagonal of the Hessian's factor, [out, in];
            half the sum of their squares is the loss.
        threshold: squared error, over the diagonal of the Hessian's factor, beyond which they are.
        stored: codes and statistics; None where statistics are not rounded.
    """

    weight: Tensor
    outliers: Tensor
    errors: Tensor
    threshold: float
    stored: Codes | None


def round_spqr(weight: Tensor, hessian: Tensor, setting: Setting | None = None) -> Rounded:
    """Round a matrix so that its outputs change little.

    Args:
        weight: [out, in].
        hessian: products of the layer's inputs, added up over a text, [in, in], on any scale.
        setting: bits, groups and outliers; by default three bits.

    Raises:
        MonadnockError: if shapes do not fit, or the damped Hessian is not positive.

    Example:
        >>> inputs, weight = torch.randn(64, 32), torch.randn(8, 32)
        >>> rounded = round_spqr(weight, inputs.t() @ inputs, Setting(bits=8, statistics_bits=None, threshold=math.inf))
        >>> bool((rounded.weight - weight).abs().max() < 0.1)
        True
    """
    setting = setting or Setting()
    if weight.dim() != 2 or hessian.shape != (weight.shape[1], weight.shape[1]):
        raise MonadnockError(
            f"A weight of shape {tuple(weight.shape)} came with a Hessian of {tuple(hessian.shape)}; it has to be "
            "square, as wide as the inputs."
        )
    hessian, columns = hessian.to(weight.device).float(), weight.shape[1]
    order = hessian.diagonal().argsort(descending=True) if setting.by_size else torch.arange(columns)
    left = weight.detach().float()[:, order].clone()  # what each column has to stand for when its turn comes
    hessian = hessian[order][:, order]
    left[:, hessian.diagonal() == 0] = 0  # inputs that never fire
    factor = inverse_factor(hessian, setting.damping)
    diagonal = factor.diagonal()
    bound = setting.threshold
    if math.isfinite(bound):
        spread = left.var(0) if len(left) > 1 else left.var(1, correction=0)
        bound *= float((spread / diagonal.square()).mean())
    outliers, errors = torch.zeros_like(left, dtype=torch.bool), torch.zeros_like(left)
    grid = Grid.fit(left, setting.bits)  # the first column, too, begins a group
    stored = Codes(order, torch.zeros_like(left, dtype=torch.uint8), [], [])
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        for column in range(start, end):
            if column % setting.group == 0:
                group = slice(column, column + setting.group)
                grid = _group_grid(left[:, group], diagonal[group], bound, setting)
                if setting.statistics_bits is not None:
                    grid = _rounded(grid, setting, stored)
            value = left[:, column : column + 1]
            codes = grid.codes(value)
            stored.codes[:, column : column + 1] = codes
            result = grid.values(codes)
            if math.isfinite(bound):
                apart = ((value - result) / diagonal[column]).square() > bound
                result = torch.where(apart, value.half().float() if setting.half else value, result)
                outliers[:, column : column + 1] = apart
            error = (value - result) / diagonal[column]
            left[:, column : column + 1] = result
            errors[:, column : column + 1] = error
            left[:, column + 1 : end].addmm_(error, factor[column : column + 1, column + 1 : end], alpha=-1)
        left[:, end:].addmm_(errors[:, start:end], factor[start:end, end:], alpha=-1)
    back = order.argsort()
    kept = stored if setting.statistics_bits is not None else None
    return Rounded(left[:, back], outliers[:, back], errors[:, back], bound, kept)


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Return the upper triangular U with U^T U = H^-1, of the damped Hessian [in, in].

    Raises:
        MonadnockError: if it is not positive; more damping helps.
    """
    damped = hessian.clone()
    damped.diagonal()[hessian.diagonal() == 0] = 1
    damped.diagonal().add_(damping * hessian.diagonal().abs().mean())
    try:
        return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    except torch.linalg.LinAlgError as error:
        raise MonadnockError(
            f"The Hessian of {len(hessian)} inputs cannot be inverted with damping {damping}; give more tokens, or "
            "a larger damping."
        ) from error


def _group_grid(group: Tensor, diagonal: Tensor, bound: float, setting: Setting) -> Grid:
    """Return the grid of a group of columns, fitted without the weights that are likely to be kept apart."""
    if math.isfinite(bound):
        kept = (_gain_of_leaving_out(group, diagonal, setting.bits) <= bound).float()
        mean = (group * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)
        group = group * kept + mean * (1 - kept)
    grid = Grid.fit(group, setting.bits, flat=setting.half or setting.statistics_bits is None)
    equal = group.amin(1, keepdim=True) == group.amax(1, keepdim=True)
    if not setting.half or not bool(equal.any()) or bool(equal.all()):
        return grid
    usual = grid.scale[~equal].median()  # a row without a width of its own must not widen those it is rounded with
    scale = torch.where(equal, usual, grid.scale)
    return grid._replace(scale=scale, zero=torch.where(equal, -group[:, :1] / scale, grid.zero))


def _rounded(grid: Grid, setting: Setting, stored: Codes) -> Grid:
    """Round a group's scales and zeros, and keep how they are stored."""
    how = (setting.statistics_bits or 0, setting.statistics_group)
    if setting.half:  # a group of nearly equal values has its zero far away, beyond float16
        low = -grid.zero * grid.scale
        scale = torch.maximum(grid.scale, low.abs() / _FAR)
        grid = grid._replace(scale=scale, zero=-low / scale)
    scale, zero = (Statistic.rounded(column, *how, half=setting.half) for column in (grid.scale, grid.zero))
    stored.scales.append(scale)
    stored.zeros.append(zero)
    return grid._replace(scale=scale.values, zero=zero.values)


def _gain_of_leaving_out(group: Tensor, diagonal: Tensor, bits: int) -> Tensor:
    """Return by how much the squared error of each row falls if one of its weights is kept apart, [out, group]."""
    rows, size = group.shape
    if size == 1:
        return ((Grid.fit(group, bits).round(group) - group) / diagonal).square()
    others = torch.arange(size - 1, device=group.device).expand(size, -1)
    others = others + (others >= torch.arange(size, device=group.device)[:, None])  # [group, group - 1]: all but one
    rest = group[:, others].flatten(0, 1)  # [out * group, group - 1]
    left = ((Grid.fit(rest, bits).round(rest) - rest).view(rows, size, -1) / diagonal[others]).square().sum(2)
    whole = ((Grid.fit(group, bits).round(group) - group) / diagonal).square().sum(1, keepdim=True)
    return whole - left

"""What rounding one weight costs the layer's output: with the best compensation, without any, and in GPTQ's order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monadnock.compression import Setting, round_spqr
from monadnock.compression.grid import Grid
from monadnock.errors import MonadnockError, nearest

KINDS = ("compensated", "plain", "sequential")


@dataclass(frozen=True)
class Factors:
    """What a squared rounding error of each input's weights is multiplied with, [in] (float64).

    Attributes:
        plain: H_jj / 2.
        compensated: 1 / (2 [H^-1]_jj), of the damped H.
    """

    plain: Tensor
    compensated: Tensor

    def of(self, kind: str) -> Tensor:
        """Return those of a kind, plain or compensated."""
        return {"plain": self.plain, "compensated": self.compensated}[kind]


def factors(hessian: Tensor, damping: float) -> Factors:
    """Return the factors of a Hessian H = 2 / N * X^T X (spqr).

    Args:
        hessian: [in, in], float64.
        damping: what is added to its diagonal, in parts of its mean.

    Raises:
        MonadnockError: if the damped Hessian is singular.

    Example:
        >>> found = factors(torch.eye(2, dtype=torch.float64) * 4, damping=0)
        >>> found.plain.tolist(), found.compensated.tolist()
        ([2.0, 2.0], [2.0, 2.0])
    """
    diagonal = hessian.diagonal()
    held = hessian.mT.clone(memory_format=torch.contiguous_format).mT  # column by column, as LAPACK writes in place:
    held.diagonal().add_(damping * diagonal.mean())  # at 11,008 inputs each further copy is 1 GB
    info = torch.empty((), dtype=torch.int32, device=hessian.device)
    torch.linalg.cholesky_ex(held, out=(held, info))
    if int(info) or not float(diagonal.mean()) > 0:
        dead = int((diagonal == 0).sum())
        raise MonadnockError(
            f"The Hessian of {len(hessian)} inputs, {dead} of them always 0, is singular with damping {damping}; "
            "give more tokens, or a damping of 0.01."
        )
    inverse = torch.cholesky_inverse(held, out=held).diagonal()
    return Factors(diagonal / 2, 1 / (2 * inverse))


def grids(weight: Tensor, bits: int, group: int | None) -> Grid:
    """Return the grids of a matrix [out, in], of each row or of groups of columns in a row: [out, groups] each."""
    size = weight.shape[1] if group is None else group
    parts = [Grid.fit(part, bits) for part in weight.split(size, dim=1)]
    return Grid(torch.cat([part.scale for part in parts], 1), torch.cat([part.zero for part in parts], 1), bits)


def squared_errors(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Return (w - quant(w))^2 of every weight [out, in], rounded to the nearest level of its grid."""
    size = weight.shape[1] if group is None else group
    return torch.cat([(part - Grid.fit(part, bits).round(part)).square() for part in weight.split(size, dim=1)], 1)


def check_setting(kinds: Sequence[str], bits: int, group: int | None, damping: float) -> None:
    """Refuse kinds of sensitivity and settings that there are not.

    Raises:
        MonadnockError: with what there is.
    """
    if not kinds:
        raise MonadnockError(f"No kind of sensitivity was asked; there are {', '.join(KINDS)}.")
    for kind in kinds:
        if kind not in KINDS:
            raise MonadnockError(f"There is no kind of sensitivity {kind!r}: {nearest(kind, KINDS)}")
    if not 1 <= bits <= 8:
        raise MonadnockError(f"{bits} bits were asked; give 1 to 8.")
    if group is not None and group < 1:
        raise MonadnockError(f"Groups of {group} columns were asked; give at least 1.")
    if not 0 <= damping < math.inf:
        raise MonadnockError(f"A damping of {damping} was asked; give at least 0.")


def sensitivity_of(
    weight: Tensor, hessian: Tensor, kind: str, *, bits: int = 3, group: int | None = None, damping: float = 0.01
) -> Tensor:
    """Return s_ij of every weight, [out, in] (float32, the weight's device).

    compensated: (w - quant(w))^2 / (2 [H^-1]_jj), the loss of the best compensation after rounding one weight alone.
    plain: (w - quant(w))^2 H_jj / 2, the loss without compensation. sequential: the same as compensated, but of the
    weight as it is when its turn comes and with the inputs that are left, column by column, large inputs first, as
    GPTQ rounds; these add up to the loss of the whole rounded matrix under the damped Hessian.

    Args:
        weight: [out, in].
        hessian: [in, in], 2 / N * X^T X.
        kind: compensated, plain or sequential.
        bits: of a rounded weight.
        group: columns of a row that share a grid; by default the whole row.
        damping: added to the Hessian's diagonal, in parts of its mean (plain has none).

    Raises:
        MonadnockError: if the damped Hessian is singular, shapes do not fit, or a setting makes no sense.

    Example:
        >>> one = sensitivity_of(torch.tensor([[0.0, 0.4, 7.0]]), 2 * torch.eye(3).double(), "plain")
        >>> [round(each, 2) for each in one[0].tolist()]
        [0.0, 0.16, 0.0]
    """
    check_setting((kind,), bits, group, damping)
    if weight.dim() != 2 or hessian.shape != (weight.shape[1], weight.shape[1]):
        raise MonadnockError(
            f"A weight of shape {tuple(weight.shape)} came with a Hessian of {tuple(hessian.shape)}; it has to be "
            "square, as wide as the inputs."
        )
    weight = weight.detach().float()
    if kind == "sequential":
        setting = Setting(bits, group or weight.shape[1], None, threshold=math.inf, damping=damping)
        return round_spqr(weight, hessian, setting).errors.square() / 2
    factor = hessian.diagonal() / 2 if kind == "plain" else factors(hessian, damping).compensated
    return squared_errors(weight, bits, group) * factor.to(weight)

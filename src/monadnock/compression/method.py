"""A compressor with its settings: its name, what it makes of a matrix, and the bits that this takes."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monadnock.compression.simple import absmax, magnitude, nearest
from monadnock.compression.spqr import Rounded, Setting, round_spqr
from monadnock.errors import MonadnockError
from monadnock.errors import nearest as nearest_name

METHODS = ("absmax", "magnitude", "rtn", "gptq", "spqr")
GRANULARITIES = ("tensor", "row", "group")
_BITS = {"absmax": 8, "magnitude": 16, "rtn": 4, "gptq": 4, "spqr": 3}
_GRANULARITY = {"absmax": "tensor", "magnitude": "tensor", "rtn": "row", "gptq": "group", "spqr": "group"}
_DAMPING = {"gptq": 0.01, "spqr": 1.0}
_USERS = {"share": ("magnitude",), "threshold": ("spqr",), "damping": ("gptq", "spqr")}
_GROUP = 16
_STATISTIC = 16  # bits of a scale, and of a zero
_OUTLIER = 32  # bits of a weight kept apart, and of its place


@dataclass(frozen=True)
class Method:
    """A compressor with its settings.

    Attributes:
        name: absmax, magnitude, rtn, gptq or spqr.
        granularity: what shares a scale, or in what magnitude pruning chooses: tensor, row or group.
        bits: of a weight.
        group: columns that share a scale.
        share: of weights that magnitude pruning takes away.
        threshold: of spqr's outliers.
        damping: of the Hessian, in parts of its diagonal's mean.

    Example:
        >>> str(Method.of("absmax")), str(Method.of("spqr", bits=4))
        ('absmax 8 bits tensor', 'spqr 4 bits group 16 threshold 0.2')
    """

    name: str
    granularity: str
    bits: int
    group: int | None = None
    share: float = 0.5
    threshold: float = 0.2
    damping: float = 1.0

    @classmethod
    def of(
        cls,
        name: str,
        *,
        granularity: str | None = None,
        bits: int | None = None,
        group: int | None = None,
        share: float | None = None,
        threshold: float | None = None,
        damping: float | None = None,
    ) -> "Method":
        """Return a compressor, with its own defaults for what is not given.

        Raises:
            MonadnockError: on an unknown name, or settings that it has no use for.
        """
        if name not in METHODS:
            raise MonadnockError(f"There is no compressor {name!r}: {nearest_name(name, METHODS)}")
        given = {"share": share, "threshold": threshold, "damping": damping}
        for what, users in _USERS.items():
            if given[what] is not None and name not in users:
                raise MonadnockError(f"{name} has no use for a {what}; {' and '.join(users)} have one.")
        granularity = granularity or ("group" if group else _GRANULARITY[name])
        bits = _BITS[name] if bits is None else bits
        group = (group or _GROUP) if granularity == "group" else group
        wanted = {"magnitude": ("tensor", "row"), "rtn": ("row", "group"), "spqr": ("group",), "gptq": ("row", "group")}
        allowed = wanted.get(name, GRANULARITIES)
        least, most = (2, 16) if name == "absmax" else (16, 16) if name == "magnitude" else (1, 8)
        if granularity not in allowed:
            raise MonadnockError(f"{name} by {granularity} was asked; it works by {' or '.join(allowed)}.")
        if name == "magnitude" and bits != most:
            raise MonadnockError(f"magnitude with {bits} bits was asked; it prunes, and leaves 16 bits to the rest.")
        if not least <= bits <= most:
            raise MonadnockError(f"{name} with {bits} bits was asked; it takes {least} to {most}.")
        if group is not None and (group < 1 or granularity != "group"):
            raise MonadnockError(
                f"{name} by {granularity} in groups of {group} was asked; a group has at least 1 column, and goes with "
                "granularity group only."
            )
        share, threshold = (0.5 if share is None else share), (0.2 if threshold is None else threshold)
        damping = _DAMPING.get(name, 0.0) if damping is None else damping
        if not (0 <= share < 1 and threshold > 0 and 0 <= damping < math.inf):
            raise MonadnockError(
                f"A share of {share}, a threshold of {threshold} and a damping of {damping} were asked; give a share "
                "from 0 to below 1, a threshold above 0, a damping of at least 0."
            )
        return cls(name, granularity, bits, group, share, threshold, damping)

    def __str__(self) -> str:
        if self.name == "magnitude":
            return f"magnitude {self.share:.0%} {self.granularity}"
        place = f"group {self.group}" if self.group else self.granularity
        more = f" threshold {self.threshold:g}" if self.name == "spqr" else ""
        if self.needs_inputs and self.damping != _DAMPING[self.name]:
            more += f" damping {self.damping:g}"
        return f"{self.name} {self.bits} bits {place}{more}"

    @property
    def needs_inputs(self) -> bool:
        """Whether it needs the second moment of the inputs."""
        return self.name in ("gptq", "spqr")

    @property
    def setting(self) -> Setting:
        """The setting of one matrix's rounding; groups as wide as the matrix are set by `apply`."""
        if self.name == "spqr":
            return Setting(self.bits, self.group or 0, threshold=self.threshold, damping=self.damping, half=True)
        return Setting(self.bits, self.group or 0, None, threshold=math.inf, damping=self.damping)

    def apply(self, weight: Tensor, hessian: Tensor | None = None) -> tuple[Tensor, Rounded | None]:
        """Return what a matrix [out, in] is compressed to (float32), and all of the rounding for gptq and spqr.

        Raises:
            MonadnockError: if the Hessian cannot be inverted.
        """
        weight = weight.detach().float()
        if self.name == "absmax":
            return absmax(weight, self.bits, self.group, whole=self.granularity == "tensor"), None
        if self.name == "magnitude":
            return magnitude(weight, self.share, whole=self.granularity == "tensor"), None
        if self.name == "rtn" or hessian is None:  # an expert that got no token is rounded as it is
            return nearest(weight, self.bits, self.group), None
        rounded = round_spqr(weight, hessian, replace(self.setting, group=self.group or weight.shape[1]))
        return rounded.weight, rounded

    def average_bits(self, shape: torch.Size, outliers: float | None = 0.0) -> float:
        """Return the bits of a weight of a matrix [out, in], with its statistics and outliers.

        Order of columns and starts of rows are not counted, as in the paper; the stored form counts them.

        Args:
            shape: of the matrix.
            outliers: share of weights kept apart (spqr); None for a matrix that got no input and was only rounded.

        Example:
            >>> Method.of("spqr").average_bits(torch.Size([576, 576]), 0.01773)
            4.19236
        """
        rows, columns = shape
        if self.name == "magnitude":
            return 16.0
        grids = {"tensor": 1, "row": rows, "group": rows * -(-columns // (self.group or columns))}[self.granularity]
        if self.name == "spqr" and outliers is not None:
            setting = self.setting
            shared = grids // rows * -(-rows // setting.statistics_group)  # grids of scales, and of zeros
            statistics = 2 * (grids * (setting.statistics_bits or 0) + shared * 2 * _STATISTIC)
            return self.bits + statistics / (rows * columns) + outliers * _OUTLIER
        kinds = 1 if self.name == "absmax" else 2  # a scale, and for grids that lie anywhere a zero
        return self.bits + kinds * _STATISTIC * grids / (rows * columns)

"""A matrix as a run keeps it for its map, and what rounding its weights costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monadnock.errors import MonadnockError, nearest
from monadnock.findings.run import Run

PREFIX = "map-"
QUANTITIES = ("compensated", "plain", "magnitude")
LEVELS = 32767  # of a weight's code, on either side of 0
_LEAST = np.float32(1e-9)  # scale by which is divided at least, as where the grids were made
_BLOCK = 1 << 20  # weights that are worked on at once


@dataclass(frozen=True)
class Weights:
    """The arrays of a map: any weight and any sensitivity follows from them.

    A weight is w_ij = codes_ij * step_i, its levels are scale * (n - zero) for n from 0 to 2^bits - 1, and
    s_ij = (w - quant(w))^2 * factor_j.

    Attributes:
        codes: int16, [out, in].
        step: float32, [out].
        scale: distance of two levels, float32, [out, groups].
        zero: where 0 lies among the levels, float32, [out, groups].
        plain: factors of the sensitivity without compensation, float32, [in].
        compensated: factors of the sensitivity with compensation, float32, [in].
        bits: of a rounded weight.
        group: columns of a row that share a grid.
    """

    codes: np.ndarray
    step: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    plain: np.ndarray
    compensated: np.ndarray
    bits: int
    group: int

    def rows(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return |w| and (w - quant(w))^2 of some rows, both float32, [row, in]."""
        weight = self.codes[start:end] * self.step[start:end, None]
        scale, zero = self.scale[start:end], self.zero[start:end]
        if scale.shape[1] > 1:
            scale, zero = (np.repeat(each, self.group, 1)[:, : weight.shape[1]] for each in (scale, zero))
        level = weight / np.maximum(scale, _LEAST)
        level += zero
        np.rint(level, out=level)
        np.clip(level, 0, 2**self.bits - 1, out=level)
        level -= zero
        level *= scale
        level -= weight
        np.square(level, out=level)
        return np.abs(weight, out=weight), level

    def blocks(self, size: int) -> list[tuple[int, int]]:
        """Return the first and last + 1 of rows to work on at once, in multiples of `size` rows."""
        count, width = self.codes.shape
        step = max(1, _BLOCK // (width * size)) * size
        return [(start, min(start + step, count)) for start in range(0, count, step)]


def map_names(run: Run) -> list[str]:
    """Return the names of a run's maps, sorted.

    Raises:
        MonadnockError: if there is none.

    Example:
        >>> map_names(Run.open("demo"))  # doctest: +SKIP
        ['map-011-o']
    """
    if names := [name for name in run.tensor_names() if name.startswith(PREFIX)]:
        return names
    raise MonadnockError(
        f"{run.path} has no maps; make one with `monadnock sensitivity MODEL --layer L --module M --map "
        f"--out {run.path}`."
    )


def check_names(run: Run, names: Sequence[str] | None) -> list[str]:
    """Return the maps that are asked for, by default all.

    Raises:
        MonadnockError: if there is none, or none of a name, with the nearest names.
    """
    known = map_names(run)
    for name in names or ():
        if name not in known:
            raise MonadnockError(f"This run has no map {name!r}: {nearest(name, known)}")
    return list(names or known)


def read_weights(run: Run, name: str) -> tuple[Weights, dict[str, str]]:
    """Return a map's arrays and its facts as texts.

    Raises:
        MonadnockError: if there is no such map, with the nearest names, or if it is damaged.

    Example:
        >>> weights, facts = read_weights(Run.open("demo"), "map-011-o")  # doctest: +SKIP
        >>> weights.codes.shape, facts["name"]  # doctest: +SKIP
        ((576, 576), 'model.layers.11.self_attn.o_proj')
    """
    check_names(run, [name])
    arrays, facts = run.tensors(name)
    try:
        bits, _ = int(facts["bits"]), float(facts["damping"])
        for each in ("layer", *(("d_head", "num_heads") if facts.get("axis") else ())):
            int(facts[each])
        facts["module"]
        codes = arrays["codes"]
        count, width = codes.shape
        group = int(facts["group"] or width)
        groups = -(-width // group)
        shapes = {"step": (count,), "scale": (count, groups), "zero": (count, groups)}
        shapes |= {"plain": (width,), "compensated": (width,)}
        found = {each: np.ascontiguousarray(arrays[each], np.float32) for each in shapes}
        whole = codes.dtype == np.int16 and codes.size > 0 and 1 <= bits <= 8
        whole = whole and all(each.shape == shapes[key] and np.isfinite(each).all() for key, each in found.items())
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise MonadnockError(f"{name} of {run.path} is damaged ({error}); remove it and measure again.") from error
    if not whole:
        raise MonadnockError(f"{name} of {run.path} is damaged (wrong shapes or numbers); remove it and measure again.")
    return Weights(codes, **found, bits=bits, group=group), facts

"""What a run keeps of a matrix for its map: the weights and what their sensitivities are made of."""

import numpy as np
from torch import Tensor

from monadnock.models.matrices import Matrix
from monadnock.sensitivity.loss import Factors, grids
from monadnock.sensitivity.shape import Heads

LEVELS = 32767  # of a weight's code, on either side of 0


def map_name(matrix: Matrix) -> str:
    """Return the name of a map's tensors in the run."""
    return f"map-{matrix.part}"


def map_tensors(weight: Tensor, found: Factors, bits: int, group: int | None) -> dict[str, np.ndarray]:
    """Return the arrays of a map.

    Any entry follows from them: w_ij = codes_ij * step_i, its grid has the levels scale * (n - zero), and s_ij is
    (w - quant(w))^2 times the column's factor.

    Args:
        weight: [out, in].
        found: the factors of its columns.
        bits: of a rounded weight.
        group: columns of a row that share a grid; None: the whole row.

    Returns:
        codes (int16, [out, in]), step (float32, [out]), scale and zero (float32, [out, groups]), plain and compensated
        (float32, [in]).
    """
    weight = weight.detach().float().cpu()
    step = (weight.abs().amax(1) / LEVELS).clamp(min=1e-38)
    grid = grids(weight, bits, group)
    arrays = {"step": step, "scale": grid.scale, "zero": grid.zero, "plain": found.plain}
    arrays["compensated"] = found.compensated
    codes = (weight / step[:, None]).round().short().numpy()
    return {"codes": codes} | {name: each.float().cpu().contiguous().numpy() for name, each in arrays.items()}


def map_facts(
    matrix: Matrix,
    heads: Heads | None,
    name: str,
    *,
    bits: int,
    group: int | None,
    damping: float,
    data: str,
    tokens: int,
) -> dict[str, str]:
    """Return what a map is of, as texts: matrix, name, bits, group, damping, data, tokens, heads and rotary pairs."""
    told = {key: "" if value is None else str(value) for key, value in matrix.columns.items()}
    told |= {"name": name, "bits": str(bits), "group": "" if group is None else str(group)}
    told |= {
        "damping": str(damping),
        "data": data,
        "tokens": str(tokens),
        "axis": "",
        "d_head": "",
        "num_heads": "",
        "pairs": "",
    }
    if heads is not None:
        told |= {"axis": heads.axis, "d_head": str(heads.width), "num_heads": str(heads.count)}
        if heads.pairs is not None:
            told["pairs"] = " ".join(f"{a}-{b}" for a, b in heads.pairs.t().tolist())
    return told

"""The stored form of a matrix that SpQR rounded: a few bits a weight, read back to the very same numbers."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from monadnock.compression.grid import Statistic
from monadnock.compression.spqr import Rounded, Setting
from monadnock.errors import MonadnockError

Arrays = dict[str, np.ndarray]


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return whole numbers below 2^bits, in any shape, as a row of bytes.

    Example:
        >>> pack(np.array([1, 2, 3, 7], dtype=np.uint8), 3).tolist()
        [41, 240]
    """
    places = np.arange(bits - 1, -1, -1, dtype=np.uint8)
    return np.packbits((codes.reshape(-1, 1) >> places) & 1)


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the `count` numbers that `pack` made bytes of (uint8); a `ValueError` if these are not so many.

    Example:
        >>> unpack(np.array([41, 240], dtype=np.uint8), 3, 4).tolist()
        [1, 2, 3, 7]
    """
    if len(packed) != -(-count * bits // 8):
        raise ValueError(f"{len(packed)} bytes for {count} codes of {bits} bits")
    whole = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    return whole @ (1 << np.arange(bits - 1, -1, -1, dtype=np.uint8))


def pack_matrix(
    rounded: Rounded, setting: Setting, rows_kept: Tensor, kept: tuple[int, ...]
) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays of a matrix and the facts that are needed to read them.

    Args:
        rounded: what SpQR made, in half precision, of the rows that are not kept.
        setting: how.
        rows_kept: the rows that are stored in float16, [kept, in].
        kept: which these are.
    """
    stored = rounded.stored
    assert stored is not None and setting.half and setting.statistics_bits is not None
    rows, columns = rounded.weight.shape
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), rounded.outliers.sum(1).cpu().cumsum(0)])
    narrow = np.uint16 if columns <= 2**16 else np.int32
    arrays: Arrays = {
        "codes": pack(stored.codes.cpu().numpy(), setting.bits),
        "order": stored.order.cpu().numpy().astype(narrow),
        "outlier_starts": starts.numpy().astype(np.int32),
        "outlier_columns": rounded.outliers.nonzero()[:, 1].cpu().numpy().astype(narrow),
        "outlier_values": rounded.weight[rounded.outliers].half().cpu().numpy(),
        "kept_rows": np.array(kept, dtype=np.int32),
        "kept_values": rows_kept.half().cpu().numpy(),
    }
    for name, each in (("scale", stored.scales), ("zero", stored.zeros)):
        codes = torch.stack([one.codes for one in each]).to(torch.uint8)
        arrays[f"{name}_codes"] = pack(codes.cpu().numpy(), setting.statistics_bits)
        arrays[f"{name}_steps"] = torch.stack([one.scale for one in each]).half().cpu().numpy()
        arrays[f"{name}_lows"] = torch.stack([one.low for one in each]).half().cpu().numpy()
    facts = {
        "shape": [rows + len(kept), columns],
        "bits": setting.bits,
        "group": min(setting.group, columns),
        "statistics_bits": setting.statistics_bits,
        "statistics_group": setting.statistics_group,
    }
    return arrays, facts


def unpack_matrix(arrays: Arrays, facts: dict[str, Any]) -> Tensor:
    """Return the matrix [out, in] (float32), bit for bit what SpQR gave.

    Raises:
        MonadnockError: if the arrays do not fit the facts.
    """
    try:
        return _unpacked(arrays, facts)
    except (KeyError, ValueError, IndexError, RuntimeError, TypeError) as error:
        raise MonadnockError(f"A packed matrix is damaged ({error}); compress the model again.") from error


def _unpacked(arrays: Arrays, facts: dict[str, Any]) -> Tensor:
    out, columns = facts["shape"]
    kept = torch.from_numpy(arrays["kept_rows"].astype(np.int64))
    rows = out - len(kept)
    codes = torch.from_numpy(unpack(arrays["codes"], facts["bits"], rows * columns)).view(rows, columns).float()
    groups = range(-(-columns // facts["group"]))
    read = {}
    for name in ("scale", "zero"):
        own = unpack(arrays[f"{name}_codes"], facts["statistics_bits"], len(groups) * rows).reshape(len(groups), rows)
        shape = len(groups), -(-rows // facts["statistics_group"])
        steps, lows = (torch.from_numpy(arrays[f"{name}_{part}"].reshape(shape)) for part in ("steps", "lows"))
        read[name] = [
            Statistic.read(torch.from_numpy(own[g]), steps[g], lows[g], facts["statistics_group"]) for g in groups
        ]
    parts = codes.split(facts["group"], dim=1)
    levels = [
        scale.values * (part - zero.values)
        for part, scale, zero in zip(parts, read["scale"], read["zero"], strict=True)
    ]
    others = torch.empty(rows, columns)
    others[:, torch.from_numpy(arrays["order"].astype(np.int64))] = torch.cat(levels, 1)
    counts = torch.from_numpy(np.diff(arrays["outlier_starts"].astype(np.int64)))
    place = torch.arange(rows).repeat_interleave(counts)
    apart = torch.from_numpy(arrays["outlier_columns"].astype(np.int64))
    others[place, apart] = torch.from_numpy(arrays["outlier_values"]).float()
    weight = torch.empty(out, columns)
    free = torch.ones(out, dtype=torch.bool)
    free[kept] = False
    weight[free] = others
    weight[kept] = torch.from_numpy(arrays["kept_values"]).float()
    return weight

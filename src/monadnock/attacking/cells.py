"""The cells of a sweep: one attack each, made ready, with its columns in the tables and the names of its parts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monadnock.attacking.measures import Measure
from monadnock.attacking.modes import MODES, Change, Setting
from monadnock.attacking.targets import Targets
from monadnock.data import Windows
from monadnock.errors import MonadnockError
from monadnock.models import Adapter


@dataclass(frozen=True)
class Cell:
    """One attack: its columns in the tables, and how it is done (None: the clean model)."""

    columns: dict[str, Any]
    change: Change | None


def make_cells(
    adapter: Adapter, targets: Targets, windows: Windows, modes: Sequence[str], ks: Sequence[int], seeds: int
) -> list[Cell]:
    """Make every attack ready, the clean model first; an impossible one is refused before anything is measured."""
    cells = [Cell({"mode": "none", "layer": None, "expert": None, "k": 0, "seed": None, "targets": ""}, None)]
    for name in modes:
        mode = MODES[name]
        for k in sorted(set(ks)):
            if k < mode.least:  # zeroing no row is the clean model
                continue
            for seed in range(seeds) if mode.drawn else [None]:
                change = mode.make(Setting(adapter, targets, windows, k, seed or 0))
                aim = change.aim
                columns = {
                    "mode": name,
                    "layer": None if aim is None else aim.layer,
                    "expert": None if aim is None else aim.expert,
                    "k": k,
                    "seed": seed,
                    "targets": change.targets,
                }
                cells.append(Cell(columns, change))
    if len(cells) == 1:
        raise MonadnockError(f"k = 0 was asked of {', '.join(modes)}; only retain can keep none, give a larger k.")
    return cells


def part_name(cell: Cell, measure: Measure, part: str) -> str:
    """Return the name of a part: the same for the same attack, metric and data, in whatever start."""
    columns = cell.columns
    digest = hashlib.sha256(f"{columns['targets']}\n{measure.depends[part]}".encode()).hexdigest()[:12]
    drawn = "" if columns["seed"] is None else f"-seed{columns['seed']}"
    return f"{columns['mode']}-{columns['k']:05d}{drawn}-{part}-{digest}"

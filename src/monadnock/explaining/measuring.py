"""What is measured while a link is cut: the effects of an attack, and the start token fed alone."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

from torch import Tensor

from monadnock.attacking.cells import Cell, make_cells, part_name
from monadnock.attacking.measures import CleanStates, Measure, Predictions, TheChain
from monadnock.attacking.modes import Change
from monadnock.attacking.recording import missing_parts, record
from monadnock.data import Windows
from monadnock.explaining.cutting import Plan
from monadnock.findings import Run
from monadnock.findings.modes import CONTROLS
from monadnock.models import Adapter
from monadnock.models.start import start_states

Values = dict[str, float]


class Bench:
    """Makes attacks ready and measures them; what the run has already is read from there.

    Attributes:
        data: the text in words, as it stands in tables.
        clean_cell: no attack.
        cells: by mode, the attack and then its controls, each on as many targets as the plan says.
    """

    def __init__(self, adapter: Adapter, run: Run, plan: Plan, windows: Windows, controls: int):
        self.adapter, self.run, self.plan, self.data = adapter, run, plan, windows.label
        self.cells: dict[str, list[Cell]] = {}
        self.clean_cell: Cell
        for cut in plan.cuts:
            one = make_cells(adapter, plan.targets, windows, [cut.mode], [cut.k], 1)
            drawn = make_cells(adapter, plan.targets, windows, [CONTROLS[cut.mode]], [cut.k], controls)
            self.clean_cell, self.cells[cut.mode] = one[0], [*one[1:], *drawn[1:]]
        every = [cell.change for cells in self.cells.values() for cell in cells if cell.change]
        self._states = CleanStates(adapter, windows, every)
        self._parts: tuple[tuple[Measure, str], ...] = (
            (Predictions(self._states, self.data), "perplexity"),
            (TheChain(self._states, self.data), "chain"),
        )

    def missing(self, cells: Sequence[Cell]) -> int:
        """Return how many steps of measuring are left."""
        parts = [(cell, measure, part) for cell in cells for measure, part in self._parts]
        return sum(measure.steps for cell, measure, part in parts if missing_parts(self.run, cell, measure, [part]))

    def effects(self, cell: Cell, step: Callable[[], None]) -> Values:
        """Return the metrics under an attack; what is not on disk yet is measured, and written at once."""
        values: Values = {}
        for measure, part in self._parts:
            if missing := missing_parts(self.run, cell, measure, [part]):
                record(self.run, cell, self.clean_cell, measure, missing, step)
            values |= dict(self.run.part("effects", part_name(cell, measure, part)).select("metric", "value").rows())
        return values

    def alone(self, change: Change | None) -> Tensor:
        """Return h of the start token fed alone, [layer, d_model]."""
        with nullcontext() if change is None else change.enter():
            return start_states(self.adapter, self.plan.targets.start_token).residual

    def start_h(self, states: Tensor) -> float:
        """Return the largest |h| of the start token, median over the layers in which a massive feature lives."""
        return float(states[list(self.plan.alive)].abs().amax(1).median())
